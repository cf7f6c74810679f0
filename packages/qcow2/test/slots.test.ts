import { getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { Slots } from '../src/storage/slots.js'

describe('Slots', () => {
  const { signal: never } = new AbortController()

  /** Takes a slot and notes when it has it. */
  function taking(slots: Slots, signal = never) {
    const state = { has: false }
    const done = slots.take(signal).then(() => {
      state.has = true
    })
    return { state, done }
  }
  const settled = () => new Promise(resolve => setImmediate(resolve))

  it('are given in the order of arrival, so many at a time', async () => {
    const slots = new Slots(2)
    const takers = Array.from({ length: 5 }, () => taking(slots))
    const has = () => takers.map(({ state }) => state.has)
    await settled()
    expect(has()).toEqual([true, true, false, false, false])
    slots.give()
    await settled()
    expect(has()).toEqual([true, true, true, false, false])
    slots.give()
    slots.give()
    await settled()
    expect(has()).toEqual([true, true, true, true, true])
    expect(getEventListeners(never, 'abort')).toEqual([])
  })

  it('who no longer waits takes none', async () => {
    const slots = new Slots(1)
    await slots.take(never)
    const controller = new AbortController()
    const gone = taking(slots, controller.signal)
    const next = taking(slots)
    controller.abort(new Error('enough'))
    await expect(gone.done).rejects.toThrow('enough')
    slots.give()
    await settled()
    expect(next.state.has).toBe(true)
    slots.give()
    await expect(slots.take(controller.signal)).rejects.toThrow('enough')
    await slots.take(never)
  })
})
