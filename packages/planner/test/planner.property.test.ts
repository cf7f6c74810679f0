import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type BitmapFacts,
  bodyQueries,
  buildCheckpointTree,
  type DiskPlan,
  judgeBitmap,
  type LayerFacts,
  planBackup,
  planExitStatus,
  planToJson,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer, MiB } from './facts.js'

const rarely = fc.integer({ min: 0, max: 7 }).map(roll => roll === 0)

const anyBitmap = (name: string): fc.Arbitrary<BitmapFacts> =>
  fc
    .record({ broken: rarely, off: rarely, corrupt: rarely, fine: fc.boolean() })
    .map(({ broken, off, corrupt, fine }) =>
      bitmap(name, {
        inconsistent: broken,
        recording: !off,
        corrupt: corrupt && fine ? 'type 7' : undefined,
        granularity: fine ? 4096 : 65536,
      }),
    )

const anyLayer = (filename: string): fc.Arbitrary<LayerFacts> =>
  fc
    .record({
      cp1: fc.option(anyBitmap('cp1'), { nil: undefined, freq: 4 }),
      cp2: fc.option(anyBitmap('cp2'), { nil: undefined }),
      locked: rarely,
      bitmapsStale: rarely,
      grown: rarely,
      problem: rarely,
      denied: rarely,
    })
    .map(({ cp1, cp2, locked, bitmapsStale, grown, problem, denied }) =>
      layer(
        filename,
        [cp1, cp2].filter(entry => entry !== undefined),
        {
          ...{ locked, bitmapsStale, virtualSize: grown ? 2 * MiB : MiB },
          problem: problem
            ? { code: denied ? 'image-denied' : 'image-missing', message: 'as drawn' }
            : undefined,
        },
      ),
    )

const anyChain = fc
  .integer({ min: 1, max: 4 })
  .chain(length => fc.tuple(...Array.from({ length }, (_, index) => anyLayer(`/images/l${index}`))))

const anyFacts: fc.Arbitrary<BackupFacts> = fc
  .record({
    chain: anyChain,
    top: fc.integer({ min: 0, max: 5 }),
    entry: fc.constantFrom('bitmap', 'no', undefined),
    hasDomain: fc.boolean(),
    format: fc.constantFrom('qcow2', 'qcow2', 'qcow2', undefined, 'raw'),
    target: fc.constantFrom('vda', 'vda', 'vdz'),
  })
  .map(({ chain, top, entry, hasDomain, format, target }) => ({
    domain: domain([disk('vda', '/images/l0', { format })]),
    checkpoints: [
      checkpoint('cp1', {
        disks: entry && [{ name: target, checkpoint: entry, bitmap: undefined }],
        domain: hasDomain ? domain([disk(target, `/images/l${top}`)]) : undefined,
      }),
      checkpoint('cp2', { parent: 'cp1' }),
    ],
    chains: new Map([['vda', chain]]),
  }))

/** libvirt's rule, said as simply as can be. */
function modelValid(chain: readonly LayerFacts[], name: string): boolean {
  if (chain.some(facts => !facts.bitmapsStale && facts.bitmaps.some(({ corrupt }) => corrupt !== undefined)))
    return false
  const found = chain.map(facts =>
    facts.bitmapsStale ? undefined : facts.bitmaps.find(entry => entry.name === name),
  )
  const held = found.map(entry => (entry ? 'x' : '.')).join('')
  if (!/^x+\.*$/.test(held)) return false
  return found.every(
    (entry, index) => !entry || (entry.recording && (!entry.inconsistent || chain[index]!.locked)),
  )
}

/** By the independent rule: by their flags some of these facts are chained (see history.property.test.ts for both). */
function planVda(facts: BackupFacts): DiskPlan {
  return planBackup(facts, { incremental: 'cp1', dialect: 'independent' }).disks[0]!
}

describe('judgeBitmap', () => {
  it('agrees with the model, and its layers are those that hold the bitmap', () => {
    fc.assert(
      fc.property(anyChain, chain => {
        const verdict = judgeBitmap(chain, 'cp1')
        expect(verdict.valid).toBe(modelValid(chain, 'cp1'))
        if (verdict.valid) expect(verdict.layers).toEqual(verdict.layers.map((_, index) => index))
        else expect(verdict.violation.layer).toBeLessThan(chain.length)
      }),
      { numRuns: 2000 },
    )
  })
})

describe('planBackup', () => {
  it('never guesses clean: incremental only over a valid chain, unlocked, of one size, with nothing stale below', () => {
    fc.assert(
      fc.property(anyFacts, facts => {
        const plan = planVda(facts)
        if (plan.mode !== 'incremental') return
        const chain = facts.chains.get('vda')!
        expect(modelValid(chain, 'cp1')).toBe(true)
        expect(plan.libvirt).toBe('accept')
        expect(chain.some(({ locked, problem }) => locked || problem)).toBe(false)
        expect(new Set(plan.merge.map(({ layer }) => chain[layer]!.virtualSize)).size).toBe(1)
        expect(
          chain.some(facts => facts.bitmapsStale && facts.bitmaps.some(({ name }) => name === 'cp1')),
        ).toBe(false)
        // The layer that was the top then, if it is still there, is among the merged ones.
        const topThen = facts.checkpoints[0]!.domain?.disks[0]?.source
        const index = chain.findIndex(({ filename }) => filename === topThen)
        if (index >= 0) expect(plan.merge.map(({ layer }) => layer)).toContain(index)
      }),
      { numRuns: 3000 },
    )
  })

  it('says what libvirt says: the chain rule and equal sizes, whatever the checkpoint recorded', () => {
    fc.assert(
      fc.property(anyFacts, facts => {
        const plan = planVda(facts)
        const chain = facts.chains.get('vda')!
        if (chain.some(({ locked, problem }) => locked || problem)) return
        const merged = chain.filter(
          facts => !facts.bitmapsStale && facts.bitmaps.some(({ name }) => name === 'cp1'),
        )
        const accepts =
          (facts.domain.disks[0]!.format ?? 'qcow2') === 'qcow2' &&
          modelValid(chain, 'cp1') &&
          new Set(merged.map(({ virtualSize }) => virtualSize)).size === 1
        expect(plan.libvirt).toBe(accepts ? 'accept' : 'reject')
      }),
      { numRuns: 3000 },
    )
  })

  it('explains every disk that is not incremental, and lists what to merge wherever libvirt accepts', () => {
    const same = { incremental: 'accept', full: 'reject', unknown: 'unknown' } as const
    fc.assert(
      fc.property(anyFacts, facts => {
        const plan = planVda(facts)
        const grave = plan.reasons.filter(({ severity }) => severity !== 'note')
        if (plan.mode !== 'incremental' || same[plan.mode] !== plan.libvirt) expect(grave).not.toEqual([])
        else expect(grave).toEqual([])
        expect(plan.merge.length > 0).toBe(plan.libvirt === 'accept')
        for (const { message } of plan.reasons) expect(message).toMatch(/vda|checkpoint/i)
      }),
      { numRuns: 3000 },
    )
  })

  it('gives JSON that is plain, kebab-case and complete, and queries only for what it merges', () => {
    fc.assert(
      fc.property(anyFacts, facts => {
        const plan = planBackup(facts, { incremental: 'cp1' })
        const json = planToJson(plan)
        expect(JSON.parse(JSON.stringify(json))).toEqual(json)
        expect(JSON.stringify(json).match(/"[a-z]+[A-Z]\w*":/)).toBeNull()
        expect([0, 4, 11]).toContain(planExitStatus(plan))
        for (const query of bodyQueries(facts, plan))
          expect(query.union.length).toBe(plan.disks[0]!.merge.length)
      }),
    )
  })
})

describe('buildCheckpointTree', () => {
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  const anyParents = fc.array(fc.option(fc.constantFrom(...names, 'gone'), { nil: undefined }), {
    minLength: 6,
    maxLength: 6,
  })

  it('ends on every circle, and ancestors and descendants are each other turned round', () => {
    fc.assert(
      fc.property(anyParents, parents => {
        const tree = buildCheckpointTree(
          names.map((name, index) => checkpoint(name, { parent: parents[index] })),
        )
        for (const a of names) {
          for (const b of names) {
            expect(tree.ancestors(a).includes(b)).toBe(tree.descendants(b).includes(a))
          }
        }
        const sound = tree.problems.length === 0
        expect(tree.current === undefined).toBe(!(sound && tree.leaves.length === 1))
      }),
      { numRuns: 1000 },
    )
  })
})
