import { describe, expect, it } from 'vitest'
import { buildCheckpointTree } from '../src/index.js'
import { checkpoint } from './facts.js'

/** `a`, `b<a` (b's parent is a). */
function tree(...specs: readonly string[]) {
  return buildCheckpointTree(
    specs.map(spec => {
      const [name, parent] = spec.split('<')
      return checkpoint(name!, { parent })
    }),
  )
}

describe('buildCheckpointTree', () => {
  it('follows a plain chain, in whatever order it comes', () => {
    const chain = tree('c<b', 'a', 'b<a')
    expect(chain).toMatchObject({
      names: ['c', 'a', 'b'],
      roots: ['a'],
      leaves: ['c'],
      current: 'c',
      problems: [],
    })
    expect(chain.ancestors('c')).toEqual(['b', 'a'])
    expect(chain.descendants('a')).toEqual(['b', 'c'])
  })

  it('is empty of nothing', () => {
    expect(tree()).toMatchObject({ names: [], roots: [], leaves: [], current: undefined, problems: [] })
    expect(tree().ancestors('x')).toEqual([])
  })

  it('has no current checkpoint with a branch', () => {
    expect(tree('a', 'b<a', 'c<a')).toMatchObject({
      leaves: ['b', 'c'],
      current: undefined,
      problems: [{ code: 'checkpoint-branched', parent: 'a', checkpoints: ['b', 'c'] }],
    })
  })

  it('has no current checkpoint with two roots', () => {
    expect(tree('a', 'b')).toMatchObject({
      roots: ['a', 'b'],
      current: undefined,
      problems: [{ code: 'checkpoint-branched', parent: undefined, checkpoints: ['a', 'b'] }],
    })
  })

  it('has no current checkpoint with a missing parent: libvirt stops looking', () => {
    expect(tree('b<a', 'c<b')).toMatchObject({
      roots: ['b'],
      leaves: ['c'],
      current: undefined,
      problems: [{ code: 'checkpoint-parent-missing', checkpoint: 'b', parent: 'a' }],
    })
  })

  it('finds a circle once, with what hangs off it', () => {
    const circle = tree('a<c', 'b<a', 'c<b', 'd<c')
    expect(circle.problems).toEqual([
      { code: 'checkpoint-cycle', checkpoints: ['a', 'c', 'b'] },
      { code: 'checkpoint-branched', parent: 'c', checkpoints: ['a', 'd'] },
    ])
    expect(circle.ancestors('d')).toEqual(['c', 'b', 'a'])
    expect(circle.descendants('a')).toEqual(['b', 'c', 'd'])
    expect(circle.roots).toEqual([])
  })

  it('finds a checkpoint that is its own parent', () => {
    expect(tree('a<a').problems).toEqual([{ code: 'checkpoint-cycle', checkpoints: ['a'] }])
  })

  it('counts the first of two with one name', () => {
    const twice = tree('a', 'b<a', 'b')
    expect(twice).toMatchObject({ names: ['a', 'b'], current: 'b' })
    expect(twice.problems).toEqual([{ code: 'checkpoint-duplicate', checkpoint: 'b', copies: 2 }])
  })

  it('is quick with ten thousand in one chain', () => {
    const names = Array.from({ length: 10_000 }, (_, index) =>
      index === 0 ? 'c0' : `c${index}<c${index - 1}`,
    )
    const long = tree(...names)
    expect(long.current).toBe('c9999')
    expect(long.ancestors('c9999')).toHaveLength(9999)
    expect(long.descendants('c0')).toHaveLength(9999)
  })
})
