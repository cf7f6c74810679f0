import { run } from '@tidemark/testkit'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  bitmapOwner,
  checkpointsOverview,
  planBackup,
  planEveryCheckpoint,
  rebuildCheckpoints,
  reconcile,
  shellWord,
  showCheckpoint,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer } from './facts.js'

const vda = disk('vda', '/images/vda.qcow2')
const vdb = disk('vdb', '/images/vdb.qcow2')
const then = domain([vda, vdb])

/** Two disks, two checkpoints, all in order; then what a test changes. */
function sound(change: Partial<BackupFacts> = {}): BackupFacts {
  return {
    domain: domain([vda, vdb]),
    checkpoints: [
      checkpoint('cp1', { domain: then }),
      checkpoint('cp2', { parent: 'cp1', creationTime: 1_700_000_060, domain: then }),
    ],
    chains: new Map([
      ['vda', [layer('/images/vda.qcow2', ['cp1', 'cp2'])]],
      ['vdb', [layer('/images/vdb.qcow2', ['cp1', 'cp2'])]],
    ]),
    ...change,
  }
}

const codes = (facts: BackupFacts) => reconcile(facts).findings.map(({ code }) => code)

describe('reconcile', () => {
  it('finds nothing where nothing is wrong, nor without checkpoints', () => {
    expect(reconcile(sound())).toEqual({ domain: 'web', running: false, findings: [] })
    expect(codes({ domain: domain([]), checkpoints: [], chains: new Map() })).toEqual([])
  })

  it.each([
    ['missing', layer('/images/vda.qcow2', ['cp2']), 'checkpoint-without-bitmap', ['leave-out', 'forget']],
    [
      'in-use',
      layer('/images/vda.qcow2', [bitmap('cp1', { inconsistent: true }), 'cp2']),
      'bitmap-inconsistent',
      ['leave-out', 'forget'],
    ],
    ['stale', layer('/images/vda.qcow2', ['cp1'], { bitmapsStale: true }), 'bitmaps-stale', ['drop-stale']],
    [
      'corrupt',
      layer('/images/vda.qcow2', [bitmap('cp1', { corrupt: 'its table is past the end' })]),
      'bitmap-corrupt',
      [],
    ],
  ])('a bitmap that is %s', (_, top, code, ways) => {
    const facts = sound({ chains: new Map([...sound().chains, ['vda', [top]]]) })
    const found = reconcile(facts).findings.find(each => each.code === code)!
    expect(found).toMatchObject({ code, severity: 'error', disk: 'vda', checkpoint: 'cp1', layer: 0 })
    expect(found.ways.map(({ way }) => way)).toEqual(ways)
    expect(found.commands).toEqual(found.ways[0]?.commands ?? [])
  })

  it('an image that is gone is told once, however many checkpoints wait for it', () => {
    const problem = { code: 'image-missing', message: 'no such file' } as const
    const facts = sound({
      chains: new Map([...sound().chains, ['vda', [layer('/images/vda.qcow2', [], { problem })]]]),
    })
    expect(codes(facts)).toEqual(['image-missing'])
  })

  it('a bitmap below the layer that was the top, one of a disk left out, and several granularities', () => {
    const chain = [
      layer('/images/new.qcow2', ['cp1', bitmap('cp2', { granularity: 131072 })]),
      layer('/images/vda.qcow2', ['cp1', 'cp2']),
      layer('/images/base.qcow2', ['cp1']),
    ]
    const top = disk('vda', '/images/new.qcow2')
    const out = checkpoint('cp3', {
      ...{ parent: 'cp2', creationTime: 1_700_000_090, domain: domain([top, vdb]) },
      disks: [
        { name: 'vda', checkpoint: 'bitmap', bitmap: 'cp3' },
        { name: 'vdb', checkpoint: 'no', bitmap: undefined },
      ],
    })
    chain[0] = layer('/images/new.qcow2', ['cp1', bitmap('cp2', { granularity: 131072 }), 'cp3'])
    const facts = sound({
      domain: domain([top, vdb]),
      checkpoints: [...sound().checkpoints, out],
      chains: new Map([
        ['vda', chain],
        ['vdb', [layer('/images/vdb.qcow2', ['cp1', 'cp2', 'cp3'])]],
      ]),
    })
    expect(
      reconcile(facts).findings.map(({ code, checkpoint: name, disk: target, layer: at }) => [
        code,
        name,
        target,
        at,
      ]),
    ).toEqual([
      ['bitmap-unneeded', 'cp1', 'vda', 2],
      ['bitmap-unneeded', 'cp3', 'vdb', 0],
      ['granularity-differs', 'cp2', 'vda', undefined],
    ])
  })

  it('one name twice in an image, and an image that is full', () => {
    const facts = sound({
      chains: new Map([...sound().chains, ['vda', [layer('/images/vda.qcow2', ['cp1', 'cp1', 'cp2'])]]]),
    })
    expect(codes(facts)).toEqual(['bitmap-duplicate'])
    const huge = layer('/images/vda.qcow2', ['cp1', 'cp2'], { virtualSize: 2 ** 49 })
    expect(codes(sound({ chains: new Map([...sound().chains, ['vda', [huge]]]) }))).toEqual(['bitmap-limit'])
  })

  it('a running domain: nothing of bitmaps that only its memory knows', () => {
    const held = (file: string, names: readonly string[]) =>
      layer(
        file,
        names.map(name => bitmap(name, { inconsistent: true })),
        { locked: true },
      )
    const facts = sound({
      chains: new Map([
        ['vda', [held('/images/vda.qcow2', ['cp1', 'stray'])]],
        ['vdb', [held('/images/vdb.qcow2', ['cp1'])]],
      ]),
    })
    const { running, findings } = reconcile(facts)
    expect(running).toBe(true)
    expect(findings.map(({ code, bitmap: name }) => [code, name])).toEqual([
      ['bitmap-orphan', 'stray'],
      ['image-in-use', undefined],
      ['image-in-use', undefined],
    ])
    expect(findings[0]!.ways.map(({ way, needs }) => [way, needs])).toEqual([
      ['adopt', 'any'],
      ['delete-running', 'running'],
    ])
  })

  it('a disk of the metadata that left the domain is told once, with all its checkpoints', () => {
    const facts = sound({ domain: domain([vda]), chains: new Map([['vda', sound().chains.get('vda')!]]) })
    const [found, ...more] = reconcile(facts).findings
    expect(more).toEqual([])
    expect(found).toMatchObject({ code: 'disk-left-domain', severity: 'info', disk: 'vdb' })
    expect(found!.message).toContain("'cp1', 'cp2'")
  })

  it('the arguments of the caller are in the commands, quoted', () => {
    const facts = sound({ checkpoints: [] })
    const domainArguments = ['--domain-xml', "/tmp/it's.xml", '--checkpoint-dir', '/tmp/c']
    const { commands } = reconcile(facts, { domainArguments }).findings[0]!
    expect(commands[0]).toContain(`--domain-xml '/tmp/it'\\''s.xml' --checkpoint-dir /tmp/c --bitmap cp1`)
  })
})

describe('a word for the shell', () => {
  it('is what sh makes of it, and what a terminal shows', async () => {
    const words = await fc.sample(
      fc.oneof(
        fc.string({ unit: 'binary', maxLength: 12 }),
        fc.string({
          unit: fc.constantFrom(...`a '"\\$\`%\n\t\u001b;&|<>*?~#!=-()[]{}`, '\u202e', 'é'),
          maxLength: 12,
        }),
      ),
      400,
    )
    const sayable = words.flatMap(word => {
      const written = shellWord(word)
      if (written === undefined) {
        expect(/[\0\ufffd\p{Cs}]|[\n]$/u.test(word), JSON.stringify(word)).toBe(true)
        return []
      }
      expect(written).not.toMatch(/[\p{Cc}\u2028\u2029\u202a-\u202e]/u)
      return [{ word, written }]
    })
    expect(sayable.length).toBeGreaterThan(200)
    const script = sayable.map(({ written }) => `printf '%s\\0' ${written}`).join('\n')
    const { stdout } = await run('sh', ['-e'], { input: script })
    expect(stdout.split('\0').slice(0, -1)).toEqual(sayable.map(({ word }) => word))
  })
})

describe('whose bitmap a name tells', () => {
  it.each([
    ['virtnbdbackup.0', 'virtnbdbackup', 'certain'],
    ['one-12-3', 'opennebula', 'certain'],
    ['backup-1711586400', 'cloudstack', 'likely'],
    ['backup-vda', 'libvirt-temporary', 'certain'],
    ['libvirt-tmp-size-xml', 'libvirt-temporary', 'certain'],
    ['libvirt-migration-x', 'libvirt-temporary', 'likely'],
    ['qmpbackup-node0-0e2d7c4b-6d57-4a31-9c4b-0f3f3d0a7d11', 'qmpbackup', 'certain'],
    ['0e2d7c4b-6d57-4a31-9c4b-0f3f3d0a7d11', 'ovirt', 'likely'],
    ['pbs-incremental-dirty-bitmap', 'proxmox', 'certain'],
    ['1717171717', 'libvirt-default', 'likely'],
  ])('%s', (name, owner, certainty) => {
    expect(bitmapOwner(name, ['vda'])).toMatchObject({ owner, certainty })
  })

  it.each(['monday', 'backup-vdz', 'one-12', 'virtnbdbackup', '12', 'backup-12'])(
    '%s tells nothing',
    name => {
      expect(bitmapOwner(name, ['vda'])).toBeUndefined()
    },
  )
})

describe('the overview', () => {
  it('says of each checkpoint what the plan says, and which is current', () => {
    const facts = sound({
      chains: new Map([...sound().chains, ['vda', [layer('/images/vda.qcow2', ['cp2'])]]]),
    })
    const { checkpoints, current } = checkpointsOverview(facts)
    expect(current).toBe('cp2')
    expect(
      checkpoints.map(({ name, usable, current: is, recorded }) => [name, usable, is, recorded]),
    ).toEqual([
      ['cp1', 'some', false, ['vda', 'vdb']],
      ['cp2', 'all', true, ['vda', 'vdb']],
    ])
    for (const plan of planEveryCheckpoint(facts)) {
      const whole = planBackup(facts, { incremental: plan.incremental })
      expect(plan.disks.map(({ mode, libvirt, merge }) => ({ mode, libvirt, merge }))).toEqual(
        whole.disks.map(({ mode, libvirt, merge }) => ({ mode, libvirt, merge })),
      )
    }
  })

  it('shows one: then and now, what left, each layer', () => {
    const old = domain([disk('sda', '/images/vda.qcow2'), disk('sdz', '/images/gone.qcow2')])
    const facts = sound({ checkpoints: [checkpoint('cp1', { domain: old })] })
    const shown = showCheckpoint(facts, planBackup(facts, { incremental: 'cp1' }))
    expect(shown.disks.map(({ plan, recorded }) => [plan.target, recorded?.target])).toEqual([
      ['vda', 'sda'],
      ['vdb', undefined],
    ])
    expect(shown.gone.map(({ target }) => target)).toEqual(['sdz'])
    expect(shown.disks[0]!.layers.map(each => each.bitmap?.name)).toEqual(['cp1'])
    expect(() =>
      showCheckpoint(sound({ checkpoints: [] }), planBackup(facts, { incremental: 'cp1' })),
    ).toThrow(RangeError)
  })
})

describe('facts of any size', () => {
  const many = (count: number, name: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => name(i))

  it('65,535 bitmaps that nobody knows, a hundred checkpoints that have none', () => {
    const checkpoints = many(100, i => `cp${i}`).map((name, i) =>
      checkpoint(name, { parent: i === 0 ? undefined : `cp${i - 1}`, creationTime: i + 1, domain: then }),
    )
    const chains = new Map([
      [
        'vda',
        [
          layer(
            '/images/vda.qcow2',
            many(65_535, i => `b${i}`),
          ),
        ],
      ],
      ['vdb', [layer('/images/vdb.qcow2', [])]],
    ])
    const facts = sound({ checkpoints, chains })
    const { findings } = reconcile(facts)
    expect(findings.filter(({ code }) => code === 'bitmap-orphan').length).toBe(65_535)
    expect(findings.filter(({ code }) => code === 'checkpoint-without-bitmap').length).toBe(200)
    expect(findings.filter(({ code }) => code === 'bitmap-limit').length).toBe(1)
    expect(rebuildCheckpoints(facts).checkpoints.length).toBe(65_635)
  })

  it('ten thousand checkpoints: a line, a circle, a bush', () => {
    const names = many(10_000, i => `cp${i}`)
    const chains = new Map([['vda', [layer('/images/vda.qcow2', names)]]])
    const parents: readonly ((i: number) => string | undefined)[] = [
      i => (i === 0 ? undefined : `cp${i - 1}`),
      i => `cp${(i + 1) % 10_000}`,
      i => (i === 0 ? undefined : 'cp0'),
    ]
    for (const parent of parents) {
      const checkpoints = names.map((name, i) => checkpoint(name, { parent: parent(i), creationTime: i + 1 }))
      const facts = { domain: domain([vda]), checkpoints, chains }
      expect(checkpointsOverview(facts).checkpoints.length).toBe(10_000)
      reconcile(facts)
      const { checkpoints: made } = rebuildCheckpoints(facts, { line: true })
      expect(made.map(each => each.checkpoint.name)).toEqual(names)
    }
  })
})

describe('what mends is mended', () => {
  /** The checkpoints as `redefine --as-found` writes them, then held against the same images. */
  const afterLeavingOut = (facts: BackupFacts) => {
    const { checkpoints } = rebuildCheckpoints(facts, { asFound: true, adopt: [] })
    return reconcile({ ...facts, checkpoints: checkpoints.map(each => each.checkpoint) })
  }

  it('another image took the place of a disk', () => {
    const other = disk('vda', '/images/other.qcow2')
    const facts = sound({
      domain: domain([other, vdb]),
      chains: new Map([...sound().chains, ['vda', [layer('/images/other.qcow2', [])]]]),
    })
    const [first] = reconcile(facts).findings
    expect(first).toMatchObject({ code: 'disk-source-changed', severity: 'warning', disk: 'vda' })
    expect(first!.ways.map(({ way }) => way)).toEqual(['leave-out', 'forget'])
    expect(afterLeavingOut(facts).findings).toEqual([])
  })

  it('metadata without a list or a domain mean every writable disk', () => {
    const checkpoints = [checkpoint('cp1'), checkpoint('cp2', { parent: 'cp1' })]
    expect(reconcile(sound({ checkpoints })).findings).toEqual([])
    const broken = sound({
      checkpoints,
      chains: new Map([...sound().chains, ['vda', [layer('/images/vda.qcow2', ['cp2'])]]]),
    })
    const [first] = reconcile(broken).findings
    expect(first).toMatchObject({ code: 'checkpoint-without-bitmap', disk: 'vda', checkpoint: 'cp1' })
    expect(first!.ways.map(({ way }) => way)).toEqual(['leave-out', 'forget'])
    expect(afterLeavingOut(broken).findings).toEqual([])
  })

  it('chained bitmaps: one without metadata is never to be removed, an older checkpoint may need it', () => {
    const chain = ['cp1', 'lost', 'cp2'].map(name => bitmap(name, { recording: name === 'cp2' }))
    const facts = sound({
      chains: new Map([
        ['vda', [layer('/images/vda.qcow2', chain)]],
        ['vdb', [layer('/images/vdb.qcow2', chain)]],
      ]),
    })
    const [found, ...more] = reconcile(facts).findings
    expect(more).toEqual([])
    expect(found).toMatchObject({ code: 'bitmap-orphan', severity: 'error', bitmap: 'lost' })
    expect(found!.ways.map(({ way }) => way)).toEqual(['adopt'])
    // A broken one has no way out that would hide it from a plan from an older checkpoint.
    const holed = sound({
      chains: new Map([
        [
          'vda',
          [layer('/images/vda.qcow2', [bitmap('cp1', { recording: false, inconsistent: true }), 'cp2'])],
        ],
        ['vdb', [layer('/images/vdb.qcow2', [bitmap('cp1', { recording: false }), 'cp2'])]],
      ]),
    })
    expect(reconcile(holed, { dialect: 'chained' }).findings).toMatchObject([
      { code: 'bitmap-inconsistent', checkpoint: 'cp1', ways: [], commands: [] },
    ])
    const kept = rebuildCheckpoints(holed, { dialect: 'chained', asFound: true })
    expect(kept.checkpoints.some(({ changed }) => changed)).toBe(false)
    // Bits do not tell where it belongs.
    const place = rebuildCheckpoints(facts).checkpoints.find(each => each.checkpoint.name === 'lost')!.place
    expect(place.sure).toBe('guess')
  })
})
