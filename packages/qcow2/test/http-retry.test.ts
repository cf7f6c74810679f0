import { getEventListeners } from 'node:events'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Qcow2Error } from '../src/index.js'
import { PassingFailure, parseRetryAfter, retrying } from '../src/storage/http-retry.js'

beforeEach(() => void vi.useFakeTimers({ now: Date.UTC(2026, 0, 1) }))
afterEach(() => void vi.useRealTimers())

const passing = (pauseMs?: number) => new PassingFailure(new Qcow2Error('read-failed', 'busy'), pauseMs)

/** Fails with these, one after the other, and notes when it was asked. */
function failing(...failures: PassingFailure[]) {
  const times: number[] = []
  const start = Date.now()
  return {
    times,
    attempt: async () => {
      times.push(Date.now() - start)
      const failure = failures.shift()
      if (failure !== undefined) throw failure
      return 'done'
    },
  }
}

describe('retrying', () => {
  it('waits longer each time, and gives up', async () => {
    const { times, attempt } = failing(passing(), passing(), passing(), passing(), passing())
    const result = retrying(new AbortController().signal, attempt).catch(error => error)
    await vi.runAllTimersAsync()
    expect(await result).toMatchObject({ code: 'read-failed', message: 'busy' })
    expect(times).toEqual([0, 200, 1000, 4200])
  })

  it('waits as long as it is told', async () => {
    const { times, attempt } = failing(passing(5000), passing(0), passing())
    const result = retrying(new AbortController().signal, attempt)
    await vi.runAllTimersAsync()
    expect(await result).toBe('done')
    expect(times).toEqual([0, 5000, 5000, 8200])
  })

  it('does not wait for what will not pass, or not soon', async () => {
    const { signal } = new AbortController()
    const never = vi.fn(async () => {
      throw new RangeError('wrong')
    })
    await expect(retrying(signal, never)).rejects.toThrow(RangeError)
    expect(never).toHaveBeenCalledTimes(1)
    await expect(retrying(signal, failing(passing(10_001)).attempt)).rejects.toThrow('busy')
  })

  it('a signal ends a pause; neither timer nor listener is left', async () => {
    const controller = new AbortController()
    const result = retrying(controller.signal, failing(passing(), passing(9000)).attempt).catch(
      error => error,
    )
    await vi.advanceTimersByTimeAsync(1000)
    expect(vi.getTimerCount()).toBe(1)
    expect(getEventListeners(controller.signal, 'abort').length).toBe(1)
    controller.abort('enough')
    expect(await result).toBe('enough')
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('Retry-After', () => {
  it.each([
    [null, undefined],
    ['0', 0],
    ['120', 120_000],
    ['Thu, 01 Jan 2026 00:00:07 GMT', 7000],
    ['Wed, 31 Dec 2025 23:59:59 GMT', 0],
    ['soon', undefined],
    ['', undefined],
  ])('%j', (header, expected) => expect(parseRetryAfter(header)).toBe(expected))
})
