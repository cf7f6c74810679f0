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

  it('takes several roots, branches and circles at once', () => {
    const forest = tree('a', 'b<a', 'c<a', 'r', 's<r', 'x<y', 'y<x', 'o<gone', 'p<o')
    expect(forest).toMatchObject({
      roots: ['a', 'r', 'o'],
      leaves: ['b', 'c', 's', 'p'],
      current: undefined,
    })
    expect(forest.problems.map(({ code }) => code)).toEqual([
      ...['checkpoint-parent-missing', 'checkpoint-cycle', 'checkpoint-branched', 'checkpoint-branched'],
    ])
  })

  const SIZE = 100_000
  it.each([
    ['one chain', (index: number) => (index === 0 ? 'c0' : `c${index}<c${index - 1}`)],
    ['one circle', (index: number) => `c${index}<c${(index + 1) % SIZE}`],
    ['one parent', (index: number) => (index === 0 ? 'c0' : `c${index}<c0`)],
    ['circles of two', (index: number) => `c${index}<c${index ^ 1}`],
    ['no parents at all', (index: number) => `c${index}<gone${index}`],
  ])('is quick with a hundred thousand: %s', (_what, spec) => {
    const before = process.cpuUsage().user
    const large = tree(...Array.from({ length: SIZE }, (_, index) => spec(index)))
    large.ancestors(`c${SIZE - 1}`)
    large.descendants('c0')
    expect(large.names).toHaveLength(SIZE)
    // Some 0.2 s; what grows with the square takes minutes.
    expect((process.cpuUsage().user - before) / 1e6).toBeLessThan(5)
  })

  it('knows the whole line of a long chain, in whatever order it comes', () => {
    const names = Array.from({ length: SIZE }, (_, index) => (index === 0 ? 'c0' : `c${index}<c${index - 1}`))
    const long = tree(...names.reverse())
    expect(long.current).toBe(`c${SIZE - 1}`)
    expect(long.ancestors(`c${SIZE - 1}`)).toHaveLength(SIZE - 1)
    expect(long.descendants('c0')).toHaveLength(SIZE - 1)
  })
})
