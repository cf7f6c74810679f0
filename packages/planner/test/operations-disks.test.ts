import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type LayerFacts,
  type OperationsPlan,
  operationsExitStatus,
  operationsToEdits,
  planBackup,
  planCommit,
  planCopy,
  planDelete,
  planPull,
  reconcile,
  simulate,
  whatIf,
} from '../src/index.js'
import { applyToChain, withChain, withoutCheckpoint } from '../src/operations/apply.js'
import { bitmap, checkpoint, disk, domain, layer } from './facts.js'

const off = (name: string) => bitmap(name, { recording: false })
const brief = ({ operations }: OperationsPlan): string[] =>
  operations.map(({ kind, disk, layer, bitmap }) => `${kind} ${disk} ${layer} ${bitmap}`)
const codes = ({ problems }: OperationsPlan): string[] =>
  problems.map(({ severity, code, disk }) => `${severity} ${disk} ${code}`)

/** What is left once the bitmaps and the metadata have gone. */
function carriedOut(facts: BackupFacts, plan: OperationsPlan): BackupFacts {
  const after = plan.disks.reduce((before, target) => {
    const own = plan.operations.filter(operation => operation.disk === target)
    return withChain(before, target, applyToChain(before.chains.get(target)!, own))
  }, facts)
  return { ...after, checkpoints: withoutCheckpoint(facts.checkpoints, plan.checkpoint!) }
}

describe('chained: the disk of a deletion is the one that a backup finds', () => {
  const then = domain([disk('vdb', '/i/d')])
  const now = domain([disk('vdc', '/i/d')])
  const moved: BackupFacts = {
    domain: now,
    checkpoints: [
      checkpoint('p', { domain: then }),
      checkpoint('c', { parent: 'p', domain: now }),
      checkpoint('d', { parent: 'c', domain: now }),
    ],
    chains: new Map([['vdc', [layer('/i/d', [off('p'), off('c'), 'd'])]]]),
  }

  it('where it was another target at the checkpoint before', () => {
    const plan = planDelete(moved, { checkpoint: 'c', dialect: 'chained' })
    expect(brief(plan)).toEqual(['merge vdc 0 p', 'remove vdc 0 c'])
    const [after] = planBackup(carriedOut(moved, plan), { incremental: 'p', dialect: 'chained' }).disks
    expect([after!.mode, after!.merge.map(each => each.bitmap)]).toEqual(['incremental', ['p', 'd']])
  })

  it('where it was another target at the checkpoint itself', () => {
    const [p, c, d] = moved.checkpoints
    const facts = { ...moved, checkpoints: [p!, { ...c!, domain: then }, d!] }
    const plan = planDelete(facts, { checkpoint: 'c', dialect: 'chained' })
    expect([brief(plan), codes(plan)]).toEqual([['merge vdc 0 p', 'remove vdc 0 c'], []])
    // libvirt goes by the target's name alone.
    const independent = planDelete(facts, { checkpoint: 'c', dialect: 'independent' })
    expect([brief(independent), codes(independent)]).toEqual([[], ['note vdb disk-unplugged']])
  })

  it('where two disks changed places, and the older checkpoint left one of them out', () => {
    const before = domain([disk('vda', '/i/a'), disk('vdb', '/i/b')])
    const swapped = domain([disk('vda', '/i/b'), disk('vdb', '/i/a')])
    const facts: BackupFacts = {
      domain: swapped,
      checkpoints: [
        checkpoint('o', { domain: before }),
        checkpoint('p', {
          ...{ parent: 'o', domain: before },
          disks: [{ name: 'vda', checkpoint: 'bitmap', bitmap: undefined }],
        }),
        checkpoint('c', { parent: 'p', domain: swapped }),
        checkpoint('d', { parent: 'c', domain: swapped }),
      ],
      chains: new Map([
        ['vda', [layer('/i/b', [off('o'), off('c'), 'd'])]],
        ['vdb', [layer('/i/a', [off('o'), off('p'), off('c'), 'd'])]],
      ]),
    }
    const plan = planDelete(facts, { checkpoint: 'c', dialect: 'chained' })
    expect(brief(plan)).toEqual(['merge vda 0 o', 'remove vda 0 c', 'merge vdb 0 p', 'remove vdb 0 c'])
  })

  it('and where the metadata name another bitmap, which of both is meant cannot be told', () => {
    const [p, c, d] = moved.checkpoints
    const disks = [{ name: 'vdc', checkpoint: 'bitmap' as const, bitmap: 'd' }]
    const facts = { ...moved, checkpoints: [p!, { ...c!, disks }, d!] }
    const plan = planDelete(facts, { checkpoint: 'c', dialect: 'chained' })
    expect([operationsExitStatus(plan), codes(plan)]).toEqual([1, ['blocks vdc bitmap-name-differs']])
    expect(brief(planDelete(facts, { checkpoint: 'c', dialect: 'independent' }))).toEqual(['remove vdc 0 d'])
  })
})

describe('with the metadata of some checkpoints lost the dialect must be told', () => {
  const now = domain([disk('vda', '/i/top')])
  const base = layer('/i/base', [off('cp1'), 'cp2'])
  const facts = (checkpoints: readonly string[], ...bitmaps: Parameters<typeof layer>[1]): BackupFacts => ({
    domain: now,
    checkpoints: checkpoints.map((name, i) => checkpoint(name, { parent: checkpoints[i - 1], domain: now })),
    chains: new Map([['vda', [layer('/i/top', bitmaps), base]]]),
  })
  const commit = { disk: 'vda', top: 0, base: 1 }

  it.each([
    ['all', facts([], off('cp2'), off('cp3'), 'cp4')],
    ['the newest', facts(['cp1', 'cp2', 'cp3'], off('cp2'), off('cp3'), 'cp4')],
    ['the oldest, of an upgraded host', facts(['cp3', 'cp4'], off('cp2'), 'cp3', 'cp4')],
  ])('%s', (_, lost) => {
    const plans = [
      planCommit(lost, commit),
      planPull(lost, { disk: 'vda' }),
      planCopy(lost, { disk: 'vda', target: '/i/new' }),
      ...lost.checkpoints.map(({ name }) => planDelete(lost, { checkpoint: name })),
    ]
    for (const plan of plans) {
      expect(codes(plan)).toContain('unknown vda dialect-unclear')
      expect(() => operationsToEdits(plan)).toThrow(expect.objectContaining({ code: expect.any(String) }))
    }
    expect(codes(planCommit(lost, { ...commit, dialect: 'chained' })).join()).not.toContain('unclear')
    expect(codes(planCommit(lost, { ...commit, dialect: 'independent' })).join()).not.toContain('unclear')
  })

  it('but not where all of them record, nor where all are known', () => {
    const recording = facts(['cp3'], 'cp2', 'cp3', 'cp4')
    const sound = { ...recording, chains: new Map([['vda', [recording.chains.get('vda')![0]!]]]) }
    expect(codes(planDelete(sound, { checkpoint: 'cp3' }))).toEqual([])
    const known = facts(['cp1', 'cp2', 'cp3', 'cp4'], off('cp2'), off('cp3'), 'cp4')
    expect(codes(planCommit(known, commit)).join()).not.toContain('unclear')
  })

  it('and reconcile removes none that an older one may need', () => {
    const ways = (lost: BackupFacts) =>
      reconcile(lost).findings.flatMap(({ code, ways }) =>
        code === 'bitmap-orphan' ? [ways.map(({ way }) => way)] : [],
      )
    expect(ways(facts([], off('cp2'), off('cp3'), 'cp4'))).toEqual([
      // The one of the base alone: what it began with is not known.
      ...[['adopt'], ['adopt'], ['adopt'], []],
    ])
    expect(ways(facts(['cp1', 'cp2', 'cp3'], off('cp2'), off('cp3'), 'cp4'))).toEqual([['adopt']])
    expect(ways(facts([], 'cp3', 'cp4')).flat()).toContain('drop')
  })
})

it('what if goes by the dialect that is found afterwards', () => {
  const now = domain([disk('vda', '/i/top')])
  const names = ['cp1', 'cp2', 'cp3', 'cp4']
  const facts: BackupFacts = {
    domain: now,
    checkpoints: names.map((name, i) => checkpoint(name, { parent: names[i - 1], domain: now })),
    chains: new Map([['vda', [layer('/i/top', [off('cp1'), off('cp2'), 'cp3', 'cp4'])]]]),
  }
  const change = { kind: 'delete', checkpoint: 'cp1' } as const
  const { after } = whatIf(facts, { incremental: 'cp2' }, [change])
  expect(after).toEqual(planBackup(simulate(facts, change), { incremental: 'cp2' }))
  expect('disks' in after && after.disks[0]!.merge.map(({ bitmap }) => bitmap)).toEqual(['cp2', 'cp3'])
})

describe('a layer of two disks', () => {
  const now = domain([disk('vda', '/i/a'), disk('vdb', '/i/b')])
  const shared = (...bitmaps: Parameters<typeof layer>[1]): BackupFacts => ({
    domain: now,
    checkpoints: [checkpoint('p', { domain: now }), checkpoint('c', { parent: 'p', domain: now })],
    chains: new Map([
      ['vda', [layer('/i/a', [off('p'), 'c']), layer('/i/base', bitmaps, { fileId: '1:2' })]],
      ['vdb', [layer('/i/b', [off('p'), 'c']), layer('/link/base', bitmaps, { fileId: '1:2' })]],
    ]),
  })

  it('is touched once, under whatever name', () => {
    const plan = planDelete(shared('c', 'p'), { checkpoint: 'c', dialect: 'independent' })
    expect(brief(plan)).toEqual(['remove vda 0 c', 'remove vdb 0 c', 'remove vdb 1 c'])
    expect(plan.reopen.map(({ filename }) => filename)).toEqual(['/i/base'])
  })

  it('chained: its marks are merged before it goes', () => {
    const plan = planDelete(shared(off('p'), 'c'), { checkpoint: 'c', dialect: 'chained' })
    expect(brief(plan).filter(each => each.includes(' 1 '))).toEqual([
      'enable vda 1 p',
      'merge vda 1 p',
      'remove vdb 1 c',
    ])
  })

  it('is no base to commit into: the other disk would change, and its bitmaps would not tell', () => {
    const commit = (facts: BackupFacts) => planCommit(facts, { disk: 'vda', top: 0, base: 1 })
    expect(codes(commit(shared('c', 'p')))).toContain('blocks vda layer-shared')
    // Below a layer that both have, and that hides it.
    const facts = shared('c', 'p')
    const both = layer('/i/middle', ['c', 'p'])
    const chains = new Map([...facts.chains].map(([disk, [top, base]]) => [disk, [top!, both, base!]]))
    const plan = planCommit({ ...facts, chains }, { disk: 'vda', top: 1, base: 2 })
    expect(codes(plan).join()).not.toContain('layer-shared')
  })

  it('what if: it is changed on both', () => {
    const facts = shared(off('p'), 'c')
    const d = checkpoint('d', { parent: 'c', domain: now })
    const chained = (chain: readonly LayerFacts[]) => [
      layer(chain[0]!.filename, [off('p'), off('c'), 'd']),
      ...chain.slice(1),
    ]
    const chains = new Map([...facts.chains].map(([disk, chain]) => [disk, chained(chain)]))
    const before = { ...facts, checkpoints: [...facts.checkpoints, d], chains }
    const after = simulate(before, { kind: 'delete', checkpoint: 'c' })
    const names = (target: string) => after.chains.get(target)![1]!.bitmaps.map(({ name }) => name)
    expect([names('vda'), names('vdb')]).toEqual([['p'], ['p']])
  })

  it('a disk that is listed twice counts once', () => {
    const facts = shared()
    const listed = ['vda', '/i/a'].map(name => ({ name, checkpoint: 'bitmap' as const, bitmap: undefined }))
    const [p, c] = facts.checkpoints
    const plan = planDelete({ ...facts, checkpoints: [p!, { ...c!, disks: listed }] }, { checkpoint: 'c' })
    expect(brief(plan)).toEqual(expect.arrayContaining(['remove vda 0 c']))
    expect(plan.disks).toEqual(['vda'])
  })
})
