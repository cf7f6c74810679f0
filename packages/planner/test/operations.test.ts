import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type OperationsPlan,
  operationsExitStatus,
  operationsToEdits,
  operationsToJson,
  operationsToQmp,
  operationsToSh,
  PlanError,
  parseChange,
  parseNamedNodes,
  planBackup,
  planCommit,
  planCopy,
  planDelete,
  planPull,
  planSnapshot,
  simulate,
  whatIf,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer, MiB } from './facts.js'

const cp1 = checkpoint('cp1', { domain: domain([disk('vda', '/images/base'), disk('vdb', '/images/b')]) })
const cp2 = checkpoint('cp2', {
  parent: 'cp1',
  domain: domain([disk('vda', '/images/top'), disk('vdb', '/images/b')]),
})

/** vda: top over base, cp1 in both, cp2 in the top alone; vdb: one image with both. */
function twoDisks(change: Partial<BackupFacts> = {}): BackupFacts {
  const chains = new Map([
    ['vda', [layer('/images/top', ['cp1', 'cp2']), layer('/images/base', ['cp1'])]],
    ['vdb', [layer('/images/b', ['cp1', 'cp2'])]],
  ])
  const disks = [disk('vda', '/images/top'), disk('vdb', '/images/b')]
  return { domain: domain(disks), checkpoints: [cp1, cp2], chains, ...change }
}

function withVda(...chain: ReturnType<typeof layer>[]): BackupFacts {
  const facts = twoDisks()
  return { ...facts, chains: new Map(facts.chains).set('vda', chain) }
}

const brief = ({ operations }: OperationsPlan): string[] =>
  operations.map(({ kind, disk, layer, bitmap }) => `${kind} ${disk} ${layer} ${bitmap}`)
const codes = ({ problems }: OperationsPlan): string[] => problems.map(({ code, disk }) => `${disk} ${code}`)

describe('deleting a checkpoint', () => {
  it('takes its bitmap from every layer of every disk', () => {
    const plan = planDelete(twoDisks(), { checkpoint: 'cp1', dialect: 'independent' })
    expect(brief(plan)).toEqual(['remove vda 0 cp1', 'remove vda 1 cp1', 'remove vdb 0 cp1'])
    expect(plan.reopen.map(({ filename }) => filename)).toEqual(['/images/base'])
  })

  it('is blocked by one disk without the bitmap, which is named; an unplugged one is passed over', () => {
    const facts = twoDisks()
    const bare = { ...facts, chains: new Map(facts.chains).set('vdb', [layer('/images/b', ['cp2'])]) }
    const blocked = planDelete(bare, { checkpoint: 'cp1' })
    expect([operationsExitStatus(blocked), codes(blocked)]).toEqual([1, ['vdb bitmap-not-found']])
    for (const print of [operationsToQmp, operationsToSh, operationsToEdits]) {
      expect(() => print(blocked)).toThrow(expect.objectContaining({ code: 'operation-blocked' }))
    }
    const listed = { ...cp1, disks: [{ name: 'vdz', checkpoint: 'bitmap' as const, bitmap: 'cp1' }] }
    const gone = planDelete({ ...facts, checkpoints: [listed] }, { checkpoint: 'cp1' })
    expect([operationsExitStatus(gone), codes(gone), gone.operations]).toEqual([
      0,
      ['vdz disk-unplugged'],
      [],
    ])
  })

  it('chained: marks go to the one before, which records again where the newest goes', () => {
    const off = bitmap('cp1', { recording: false })
    const facts = withVda(layer('/images/top', [off, 'cp2']), layer('/images/base', ['cp1']))
    const plan = planDelete(facts, { checkpoint: 'cp2', dialect: 'chained' })
    expect(brief(plan).slice(0, 3)).toEqual(['enable vda 0 cp1', 'merge vda 0 cp1', 'remove vda 0 cp2'])
    const oldest = planDelete(facts, { checkpoint: 'cp1', dialect: 'chained' })
    expect(brief(oldest).every(each => each.startsWith('remove'))).toBe(true)
  })

  it.each([
    ['the parent has gone', [{ ...cp2, parent: 'cp0' }], 'checkpoint-parent-missing'],
    ['parents form a circle', [{ ...cp1, parent: 'cp2' }, cp2], 'checkpoint-cycle'],
  ])('chained: is blocked where %s', (_, checkpoints, code) => {
    const plan = planDelete(twoDisks({ checkpoints }), { checkpoint: 'cp2', dialect: 'chained' })
    expect(codes(plan)).toEqual([`vda ${code}`, `vdb ${code}`])
  })

  it('chained: never brings the parent back where it was lost', () => {
    const facts = withVda(layer('/images/top', ['cp2']), layer('/images/base', ['cp1']))
    expect(codes(planDelete(facts, { checkpoint: 'cp2', dialect: 'chained' }))).toEqual([
      'vda bitmap-not-found',
    ])
  })

  it.each([
    ['an image in use', { locked: true }, 4, 'image-in-use'],
    ['an image that is gone', { problem: { code: 'image-missing', message: 'no' } }, 1, 'image-missing'],
    ['a damaged bitmap', { bitmaps: [bitmap('x', { corrupt: 'odd' })] }, 1, 'bitmap-corrupt'],
  ] as const)('tells %s', (_, change, status, code) => {
    const facts = withVda(layer('/images/top', ['cp1']), layer('/images/base', ['cp1'], change))
    const plan = planDelete(facts, { checkpoint: 'cp1' })
    expect([operationsExitStatus(plan), codes(plan)]).toEqual([status, [`vda ${code}`]])
  })
})

describe('layers', () => {
  it.each([
    [0, 1],
    ['0', '1'],
    ['/images/top', '/images/base'],
    ['/images//./top', '1'],
  ])('%s and %s are found', (top, base) => {
    const plan = planCommit(twoDisks(), { disk: 'vda', top, base })
    expect(brief(plan)).toEqual(['add vda 1 cp2', 'merge vda 1 cp2', 'merge vda 1 cp1'])
  })

  it.each([
    [() => planCommit(twoDisks(), { disk: 'vda', top: 1, base: 0 }), 'layer-order'],
    [() => planCommit(twoDisks(), { disk: 'vda', top: 0, base: '/images/other' }), 'layer-unknown'],
    [() => planCommit(twoDisks(), { disk: 'vda', top: 0, base: 2 }), 'layer-unknown'],
    [() => planPull(twoDisks(), { disk: 'vda', base: 1 }), 'layer-order'],
    [() => planPull(twoDisks(), { disk: 'vdb' }), 'layer-order'],
    [() => planPull(twoDisks(), { disk: 'vdx' }), 'disk-unknown'],
    [() => planSnapshot(twoDisks(), { overlays: new Map([['vda', '/images/base']]) }), 'overlay-unfit'],
    [() => planDelete(twoDisks(), { checkpoint: 'cp9' }), 'checkpoint-missing'],
  ])('%o is %s', (call, code) => {
    expect(call).toThrow(expect.objectContaining({ name: 'PlanError', code }))
  })

  it('of unequal size, of version 2, or stale, cannot be united; a raw base loses all', () => {
    const top = layer('/images/top', ['cp1'])
    const commit = (change: object) =>
      planCommit(withVda(top, layer('/images/base', ['cp1'], change)), { disk: 'vda', top: 0, base: 1 })
    expect(codes(commit({ virtualSize: MiB }))).toContain('vda layer-size-differs')
    expect(codes(commit({ compat: '0.10', bitmaps: [] }))).toContain('vda image-version-2')
    expect(codes(commit({ bitmapsStale: true }))).toContain('vda bitmaps-stale')
    const raw = commit({ format: 'raw', bitmaps: [] })
    expect([operationsExitStatus(raw), codes(raw), brief(raw)]).toEqual([0, ['vda not-qcow2'], []])
  })
})

describe('what is broken', () => {
  it('is named when it is passed over', () => {
    const off = bitmap('cp2', { recording: false })
    const facts = withVda(layer('/images/top', ['cp1', off]), layer('/images/base', ['cp1', 'lost']))
    const plan = planCopy(facts, { disk: 'vda', target: '/images/copy', dialect: 'independent' })
    const skipped = plan.problems.filter(({ code }) => code === 'bitmap-skipped')
    expect(skipped.map(({ evidence }) => [evidence.bitmap, evidence.rule, evidence.layer])).toEqual([
      ['cp2', 'bitmap-disabled', 0],
      ['lost', 'bitmap-missing', 0],
    ])
    expect(brief(plan)).toEqual(['add vda target cp1', 'merge vda target cp1'])
  })

  it('is removed where a pull would hide it', () => {
    const facts = withVda(
      layer('/images/top', ['cp1']),
      layer('/images/middle', []),
      layer('/images/base', ['cp1']),
    )
    const plan = planPull(facts, { disk: 'vda', dialect: 'independent' })
    expect(brief(plan)).toEqual(['remove vda 0 cp1'])
    expect(codes(plan)).toContain('vda bitmap-trap')
    const [then] = planBackup(simulate(facts, { kind: 'pull', disk: 'vda', base: undefined }), {
      incremental: 'cp1',
    }).disks
    expect(then!.mode).toBe('full')
  })

  it('does not come back with a commit, though libvirt thinks it sound', () => {
    const facts = withVda(layer('/images/top', ['cp1']), layer('/images/base', []))
    const plan = planCommit(facts, { disk: 'vda', top: 0, base: 1, dialect: 'independent' })
    expect([brief(plan), codes(plan).includes('vda bitmap-trap')]).toEqual([[], true])
    const chained = planCommit(facts, { disk: 'vda', top: 0, base: 1, dialect: 'chained' })
    expect([operationsExitStatus(chained), codes(chained)[1]]).toEqual([1, 'vda bitmap-gap'])
  })

  it('is disabled in a base below the top, where libvirt would not miss it', () => {
    const facts = withVda(
      layer('/images/top', ['cp1']),
      layer('/images/middle', ['cp1']),
      layer('/images/base', []),
    )
    const plan = planCommit(facts, { disk: 'vda', top: 1, base: 2, dialect: 'independent' })
    expect(brief(plan)).toEqual(['add vda 2 cp1', 'merge vda 2 cp1', 'disable vda 2 cp1'])
  })

  /** The image of the time of cp1 has lost its bitmap, and metadata made of bitmaps do not tell which image that was. */
  const lost: BackupFacts = {
    domain: domain([disk('vda', '/images/top')]),
    checkpoints: ['cp1', 'cp2', 'cp3'].map((name, i) =>
      checkpoint(name, { parent: i ? `cp${i}` : undefined }),
    ),
    chains: new Map([
      ['vda', [layer('/images/top', ['cp1', 'cp2', 'cp3']), layer('/images/base', ['cp2', 'cp3'])]],
    ]),
  }

  it.each(['pull=vda', 'commit=vda:0:1', 'copy=vda:/images/copy'])(
    'looks like no bitmap of the chained dialect afterwards: %s',
    change => {
      const after = simulate(lost, parseChange(change, Number))
      const mode = (facts: BackupFacts, incremental: string) =>
        planBackup(facts, { incremental }).disks[0]!.mode
      expect([mode(lost, 'cp1'), mode(after, 'cp1')]).toEqual(['full', 'full'])
      expect(mode(after, 'cp2')).toBe('incremental')
    },
  )

  it('keeps a deletion from making flags look chained, until it is deleted itself', () => {
    const off = bitmap('cp2', { recording: false })
    const facts = { ...lost, chains: new Map([['vda', [layer('/images/top', ['cp1', off, 'cp3'])]]]) }
    const plan = planDelete(facts, { checkpoint: 'cp1' })
    expect([operationsExitStatus(plan), codes(plan)]).toEqual([1, ['vda bitmap-trap']])
    expect(operationsExitStatus(planDelete(facts, { checkpoint: 'cp1', dialect: 'independent' }))).toBe(0)
    expect(codes(planDelete(facts, { checkpoint: 'cp2' }))).toEqual([])
  })

  const whole = { ...lost, chains: new Map([['vda', [layer('/images/top', ['cp1', 'cp2', 'cp3'])]]]) }
  /** cp1 of vda lacks what these newer ones have, in one layer. */
  const holes = (newer: readonly string[], place = 0) => {
    const where = { layer: place, filename: '/images/top', missingBytes: 1, firstOffset: 0 }
    const violations = newer.map(name => ({ checkpoint: name, older: 'cp1', ...where }))
    return new Map([['cp1', new Map([['vda', { dirtyBytes: 1, violations, errors: [] }]])]])
  }

  it('keeps the newer one that shows what it lacks', () => {
    const of = (checkpoint: string, measurements = holes(['cp2'])) =>
      codes(planDelete(whole, { checkpoint, measurements }))
    expect([of('cp1'), of('cp2'), of('cp3')]).toEqual([[], ['vda bitmap-trap'], []])
    expect(of('cp2', holes(['cp2', 'cp3']))).toEqual([])
  })

  it('does not get the marks of a layer below that would hide what it lacks', () => {
    const facts = withVda(layer('/images/top', ['cp1', 'cp2']), layer('/images/base', ['cp1']))
    const measurements = holes(['cp2'])
    const pull = planPull(facts, { disk: 'vda', measurements })
    expect([brief(pull), codes(pull).includes('vda bitmap-trap')]).toEqual([
      ['merge vda 0 cp2', 'remove vda 0 cp1'],
      true,
    ])
    // What is committed the base's own bitmap records.
    const commit = { disk: 'vda', top: 0, base: 1 }
    expect(codes(planCommit(facts, { ...commit, measurements }))).not.toContain('vda bitmap-trap')
    const below = holes(['cp2'], 1)
    expect(codes(planCommit(facts, { ...commit, measurements: below }))).toContain('vda bitmap-trap')
  })
})

describe('what is printed', () => {
  const hostile = "x'\nPLAN\nrm -rf /\n$(id)"

  it('holds names of any kind as data', () => {
    const facts = withVda(layer('/images/a b', [hostile]), layer(`/images/${hostile}`, [hostile]))
    const named = { ...facts, domain: { ...facts.domain, name: hostile } }
    const script = operationsToSh(planCommit(named, { disk: 'vda', top: 0, base: 1 }))
    const lines = script.split('\n')
    expect(lines.filter(line => line === 'PLAN')).toHaveLength(1 + script.split("'\\''\nPLAN\n").length - 1)
    const json = lines.slice(3, lines.indexOf('PLAN')).join('\n')
    expect(JSON.parse(json).images[0].actions[0]).toEqual({
      action: 'merge',
      name: hostile,
      source: hostile,
      'source-filename': '/images/a b',
    })
  })

  it('holds no name whose bytes are not known: that bitmap is left behind, and told', () => {
    const facts = withVda(layer('/images/top', ['cp1', 'x\ufffd']), layer('/images/base', ['x\ufffd', 'cp1']))
    const plans = [
      planCommit(facts, { disk: 'vda', top: 0, base: 1 }),
      planPull(facts, { disk: 'vda', dialect: 'chained' }),
      planCopy(facts, { disk: 'vda', target: '/images/copy' }),
      planSnapshot(facts, { overlays: new Map([['vda', '/images/new']]) }),
    ]
    for (const plan of plans) {
      expect(plan.operations.map(({ bitmap }) => bitmap)).not.toContain('x\ufffd')
      const [told] = plan.problems.filter(({ code }) => code === 'bitmap-skipped')
      expect(told).toMatchObject({ severity: 'note', evidence: { rule: 'name-unsayable' } })
    }
  })

  it('JSON has kebab-case keys, and QMP one transaction', () => {
    const plan = planCommit(twoDisks(), { disk: 'vda', top: 0, base: 1 })
    expect(operationsToJson(plan)).toMatchObject({ action: 'commit', 'dialect-evidence': {}, reopen: [] })
    const commands = operationsToQmp(plan)
    expect(commands.map(({ execute }) => execute)).toEqual(['block-dirty-bitmap-add', 'transaction'])
    const { actions } = commands[1]!.arguments as { actions: { type: string }[] }
    expect(actions.at(-1)).toEqual({
      type: 'block-dirty-bitmap-remove',
      data: { node: 'vda-layer1', name: 'libvirt-tmp-activewrite' },
    })
  })

  it('reads no sense into a QEMU that makes none', () => {
    expect(() => parseNamedNodes({})).toThrow(TypeError)
    const nodes = parseNamedNodes([null, 7, { 'node-name': 'n', 'dirty-bitmaps': [{ name: 'b' }, null] }])
    expect(nodes.get('n')!.bitmaps.map(({ inconsistent }) => inconsistent)).toEqual([true, true])
  })
})

describe('what if', () => {
  it.each([
    ['delete=cp2', { kind: 'delete', checkpoint: 'cp2' }],
    ['detach=vdb', { kind: 'detach', disk: 'vdb' }],
    ['resize=vda=20', { kind: 'resize', disk: 'vda', size: 20 }],
    ['commit=vda:0:/images/base', { kind: 'commit', disk: 'vda', top: '0', base: '/images/base' }],
    ['pull=vda', { kind: 'pull', disk: 'vda', base: undefined }],
    ['pull=vda:2', { kind: 'pull', disk: 'vda', base: '2' }],
    ['copy=vda:/new', { kind: 'copy', disk: 'vda', target: '/new', shallow: false }],
    ['snapshot', { kind: 'snapshot', disk: undefined }],
    ['snapshot=vda', { kind: 'snapshot', disk: 'vda' }],
  ])('%s is read', (text, change) => expect(parseChange(text, Number)).toEqual(change))

  it.each(['', 'delete', 'delete=', 'snapshot=', 'commit=vda', 'commit=vda:1', 'eat=vda'])(
    '%o is refused',
    text => {
      expect(() => parseChange(text, Number)).toThrow(RangeError)
    },
  )

  const modes = (change: string, incremental = 'cp1') => {
    const facts = withVda(layer('/images/top', ['cp1', 'cp2']), layer('/images/base', ['cp1']))
    const { after } = whatIf(facts, { incremental }, [parseChange(change, Number)])
    return after instanceof PlanError
      ? after.code
      : after.disks.map(({ target, mode }) => `${target} ${mode}`)
  }

  it('plans the next backup', () => {
    expect(modes('snapshot=vda')).toEqual(modes('snapshot=vdb'))
    expect(modes('detach=vdb')).toEqual(['vda incremental'])
    expect(modes('resize=vda=20')![0]).toBe('vda full')
    expect(modes('commit=vda:0:1')![0]).toBe('vda incremental')
    expect(modes('delete=cp2')![0]).toBe('vda incremental')
    expect(modes('delete=cp1')).toBe('checkpoint-missing')
  })

  it('takes along what the bodies say: a hole stays a hole', () => {
    const facts = withVda(layer('/images/top', ['cp1', 'cp2']), layer('/images/base', ['cp1']))
    const hole = { checkpoint: 'cp2', layer: 1, filename: '/images/base', missingBytes: 1, firstOffset: 0 }
    const measurements = new Map([['vda', { dirtyBytes: 65536, violations: [hole], errors: [] }]])
    const then = (change: string) =>
      whatIf(facts, { incremental: 'cp1', measurements }, [parseChange(change, Number)])
    for (const change of ['snapshot', 'commit=vda:0:1']) {
      const { before, after } = then(change)
      expect(before.disks[0]!.mode).toBe('full')
      expect((after as typeof before).disks[0]!.mode, change).toBe('full')
    }
    // With cp2 what shows the hole would go.
    expect(() => then('delete=cp2')).toThrow(expect.objectContaining({ code: 'operation-blocked' }))
  })
})
