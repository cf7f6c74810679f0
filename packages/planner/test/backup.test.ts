import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  type DiskPlan,
  PlanError,
  planBackup,
  planExitStatus,
  planToJson,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer, MiB, simpleFacts } from './facts.js'

const VDA = '/images/vda.qcow2'
const OVERLAY = '/images/vda.s1'

function planVda(facts: BackupFacts): DiskPlan {
  return planBackup(facts, { incremental: 'cp1' }).disks.find(({ target }) => target === 'vda')!
}

/** Mode, libvirt's verdict and the codes that are more than notes. */
function verdict({ mode, libvirt, reasons }: DiskPlan) {
  return [mode, libvirt, ...reasons.filter(({ severity }) => severity !== 'note').map(({ code }) => code)]
}

describe('one disk, one image', () => {
  it('is incremental when its bitmap is sound', () => {
    const plan = planBackup(simpleFacts([layer(VDA, ['cp1'])]), { incremental: 'cp1' })
    expect(planToJson(plan)).toEqual({
      domain: 'web',
      incremental: 'cp1',
      dialect: 'independent',
      'dialect-evidence': { source: 'found', pattern: 'none', disks: [], message: expect.any(String) },
      disks: [
        {
          ...{ target: 'vda', source: VDA, mode: 'incremental', libvirt: 'accept', 'virtual-size': 64 * MiB },
          merge: [{ layer: 0, filename: VDA, bitmap: 'cp1', granularity: 65536 }],
          reasons: [],
          ...{ type: 'file', filename: VDA, format: 'qcow2' },
        },
      ],
      skipped: [],
    })
    expect(planExitStatus(plan)).toBe(0)
  })

  it.each([
    ['bitmap-missing', [], {}],
    ['bitmap-missing', [], { compat: '0.10' }],
    ['bitmap-inconsistent', [bitmap('cp1', { inconsistent: true })], {}],
    ['bitmap-disabled', [bitmap('cp1', { recording: false })], {}],
    ['bitmaps-stale', ['cp1'], { bitmapsStale: true }],
    ['bitmap-corrupt', ['cp1', bitmap('other', { corrupt: 'type 7 at entry 1' })], {}],
  ] as const)('is full for %s (%#)', (code, bitmaps, change) => {
    expect(verdict(planVda(simpleFacts([layer(VDA, bitmaps, change)])))).toEqual(['full', 'reject', code])
  })

  it('is full where QEMU takes what is not there for clean bits, which libvirt accepts', () => {
    const hollow = bitmap('cp1', { corrupt: 'its table lies past the end of the file', qemuLoads: true })
    expect(verdict(planVda(simpleFacts([layer(VDA, [hollow])])))).toEqual([
      'full',
      'accept',
      'bitmap-corrupt',
    ])
    // Another bitmap's trouble is its own.
    const other = layer(VDA, ['cp1', bitmap('other', { corrupt: 'past the end', qemuLoads: true })])
    expect(verdict(planVda(simpleFacts([other])))).toEqual(['incremental', 'accept'])
  })

  it('names the version 2 image as the cause of a missing bitmap', () => {
    const [reason] = planVda(simpleFacts([layer(VDA, [], { compat: '0.10' })])).reasons
    expect(reason).toMatchObject({ evidence: { cause: 'v2-image' } })
    expect(reason!.message).toContain('version 2')
  })

  it.each([
    'image-missing',
    'image-unreadable',
    'image-corrupt',
    'image-unsupported',
    'backing-cycle',
  ] as const)('is full when a layer has %s', code => {
    const broken = layer('/images/base.qcow2', [], { problem: { code, message: 'as found' } })
    const chain = [layer(VDA, ['cp1']), broken]
    expect(verdict(planVda(simpleFacts(chain)))).toEqual(['full', 'reject', code])
  })

  it('cannot tell of an image that who asks may not open: libvirt may', () => {
    const forbidden = layer('/images/vda.qcow2', [], {
      problem: { code: 'image-inaccessible', message: 'permission denied' },
    })
    expect(planBackup(simpleFacts([forbidden]), { incremental: 'cp1' }).disks[0]).toMatchObject({
      ...{ mode: 'unknown', libvirt: 'unknown' },
      reasons: [{ code: 'image-inaccessible', severity: 'unknown' }],
    })
  })

  it('cannot tell of an image which its own caller denied', () => {
    const denied = layer(VDA, [], { problem: { code: 'image-denied', message: 'outside /images' } })
    expect(verdict(planVda(simpleFacts([denied])))).toEqual(['unknown', 'unknown', 'image-denied'])
  })

  it('believes the domain when it declares a qcow2 file raw', () => {
    const facts = simpleFacts([layer(VDA, ['cp1'])], {
      domain: domain([disk('vda', VDA, { format: 'raw' })]),
    })
    expect(verdict(planVda(facts))).toEqual(['full', 'reject', 'not-qcow2'])
  })

  it('cannot tell of a disk without image facts', () => {
    const network = disk('vda', 'rbd:pool/vda', { type: 'network', format: undefined })
    const facts = simpleFacts([], {
      domain: domain([network]),
      checkpoints: [checkpoint('cp1', { domain: domain([network]) })],
    })
    expect(verdict(planVda(facts))).toEqual(['unknown', 'unknown', 'source-not-readable'])
    expect(planExitStatus(planBackup(facts, { incremental: 'cp1' }))).toBe(4)
  })

  it('is full and rejected when a network disk is declared raw: that needs no reading', () => {
    const network = disk('vda', 'rbd:pool/vda', { type: 'network', format: 'raw' })
    const facts = simpleFacts([], {
      domain: domain([network]),
      checkpoints: [checkpoint('cp1', { domain: domain([network]) })],
    })
    expect(verdict(planVda(facts))).toEqual(['full', 'reject', 'not-qcow2'])
  })
})

describe('a running domain', () => {
  it('cannot be told, but libvirt accepts what the disk shows: in-use is no fault there', () => {
    const chain = [layer(VDA, [bitmap('cp1', { inconsistent: true })], { locked: true })]
    expect(verdict(planVda(simpleFacts(chain)))).toEqual(['unknown', 'accept', 'image-in-use'])
  })

  it('leaves libvirt open when the bitmap is not on disk: it may be in memory', () => {
    const plan = planVda(simpleFacts([layer(VDA, [], { locked: true })]))
    expect(verdict(plan)).toEqual(['unknown', 'unknown', 'image-in-use'])
    expect(plan.reasons[0]).toMatchObject({ evidence: { onDisk: 'bitmap-missing' } })
  })

  it('is full when a layer below that nobody holds is broken', () => {
    const chain = [
      layer(OVERLAY, ['cp1'], { locked: true }),
      layer(VDA, [bitmap('cp1', { inconsistent: true })]),
    ]
    expect(verdict(planVda(simpleFacts(chain)))).toEqual([
      'full',
      'reject',
      'bitmap-inconsistent',
      'image-in-use',
    ])
  })

  it('is full for a disk that was plugged in later, whatever QEMU has in memory', () => {
    const facts = simpleFacts([layer(VDA, [], { locked: true })], {
      checkpoints: [checkpoint('cp1', { domain: domain([]) })],
    })
    expect(verdict(planVda(facts)).slice(0, 3)).toEqual(['full', 'unknown', 'disk-not-in-checkpoint'])
  })
})

describe('a chain of images', () => {
  it('merges every layer that holds the bitmap, top first, each with its own granularity', () => {
    const chain = [
      layer(OVERLAY, ['cp1']),
      layer(VDA, [bitmap('cp1', { granularity: 4096 })]),
      layer('/images/base', []),
    ]
    const facts = simpleFacts(chain, {
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', VDA)]) })],
    })
    expect(planVda(facts)).toMatchObject({
      mode: 'incremental',
      libvirt: 'accept',
      merge: [
        { layer: 0, filename: OVERLAY, granularity: 65536 },
        { layer: 1, filename: VDA, granularity: 4096 },
      ],
    })
  })

  it('finds the gap and both its edges', () => {
    const plan = planVda(
      simpleFacts([layer(OVERLAY, ['cp1']), layer('/images/mid', []), layer(VDA, ['cp1'])]),
    )
    expect(verdict(plan)).toEqual(['full', 'reject', 'bitmap-gap'])
    expect(plan.reasons[0]).toMatchObject({
      evidence: { layer: 1, filename: '/images/mid', below: { layer: 2 } },
    })
  })

  it('is full though libvirt accepts when the top of that time lost its bitmap', () => {
    const plan = planVda(simpleFacts([layer(OVERLAY, ['cp1']), layer(VDA, ['other'])]))
    expect(verdict(plan)).toEqual(['full', 'accept', 'bitmap-missing'])
    expect(plan.reasons[0]).toMatchObject({
      evidence: { layer: 1, cause: 'top-then-lacks-it', present: ['other'] },
    })
    expect(plan.merge).toHaveLength(1)
  })

  it('is full though libvirt accepts when a lower layer is stale', () => {
    const plan = planVda(simpleFacts([layer(OVERLAY, ['cp1']), layer(VDA, ['cp1'], { bitmapsStale: true })]))
    expect(verdict(plan)).toEqual(['full', 'accept', 'bitmaps-stale'])
  })

  it('does not miss the top of that time once it was committed away', () => {
    const facts = simpleFacts([layer(VDA, ['cp1'])], {
      checkpoints: [
        checkpoint('cp1', {
          domain: domain([
            disk('vda', OVERLAY, { backingStore: [{ type: 'file', source: VDA, format: 'qcow2' }] }),
          ]),
        }),
      ],
    })
    expect(verdict(planVda(facts))).toEqual(['incremental', 'accept'])
  })

  it('is full when merged layers differ in size', () => {
    const chain = [layer(OVERLAY, ['cp1'], { virtualSize: 65 * MiB }), layer(VDA, ['cp1'])]
    expect(verdict(planVda(simpleFacts(chain)))).toEqual(['full', 'reject', 'layer-size-differs'])
  })

  it('does not mind the size of a layer without the bitmap', () => {
    const chain = [layer(VDA, ['cp1']), layer('/images/base', [], { virtualSize: MiB })]
    const facts = simpleFacts(chain, {
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', VDA)]) })],
    })
    expect(verdict(planVda(facts))).toEqual(['incremental', 'accept'])
  })

  it('resolves relative backing names against the layer above', () => {
    const chain = [layer(OVERLAY, ['cp1']), layer('/copy/vda.qcow2', [], { namedAs: 'vda.qcow2' })]
    const facts = simpleFacts(chain, {
      checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', VDA)]) })],
    })
    expect(verdict(planVda(facts))).toEqual(['full', 'accept', 'bitmap-missing'])
  })
})

describe('what cannot be asked', () => {
  const facts = simpleFacts([layer(VDA, ['cp1'])])

  it('names the checkpoints there are and the nearest', () => {
    expect(() => planBackup(facts, { incremental: 'cp2' })).toThrow(
      "domain 'web' has no checkpoint 'cp2'; did you mean 'cp1'? (known: 'cp1')",
    )
  })

  it.each([
    ['checkpoint-missing', facts, { incremental: 'nope' }],
    ['disk-unknown', facts, { incremental: 'cp1', disks: ['vdb'] }],
    ['domain-without-disks', { ...facts, domain: domain([disk('sda', undefined)]) }, { incremental: 'cp1' }],
    [
      'domain-without-disks',
      { ...facts, domain: domain([disk('sda', '/a.iso', { readonly: true })]) },
      { incremental: 'cp1' },
    ],
    [
      'domain-without-disks',
      { ...facts, domain: domain([disk('sda', '/a.iso', { device: 'cdrom' })]) },
      { incremental: 'cp1' },
    ],
  ] as const)('throws %s', (code, given, request) => {
    try {
      planBackup(given, request)
      expect.unreachable()
    } catch (error) {
      expect(error).toBeInstanceOf(PlanError)
      expect(error).toMatchObject({ code })
    }
  })
})

describe('which disks', () => {
  const facts: BackupFacts = {
    domain: domain([
      disk('vdb', '/b'),
      disk('vda', '/a'),
      disk('sda', '/c.iso', { device: 'cdrom', readonly: true }),
      disk('sdb', undefined),
    ]),
    checkpoints: [checkpoint('cp1', { domain: domain([disk('vda', '/a'), disk('vdb', '/b')]) })],
    chains: new Map([
      ['vda', [layer('/a', ['cp1'])]],
      ['vdb', [layer('/b', [])]],
    ]),
  }

  it('are in the domain order, and the others are said to be skipped', () => {
    const plan = planBackup(facts, { incremental: 'cp1' })
    expect(plan.disks.map(({ target }) => target)).toEqual(['vdb', 'vda'])
    expect(plan.skipped).toEqual([
      { target: 'sda', why: 'read-only' },
      { target: 'sdb', why: 'empty' },
    ])
    expect(planExitStatus(plan)).toBe(10)
  })

  it('are limited by request, in the domain order still', () => {
    const plan = planBackup(facts, { incremental: 'cp1', disks: ['vda', 'vdb'] })
    expect(plan.disks.map(({ target }) => target)).toEqual(['vdb', 'vda'])
    const one = planBackup(facts, { incremental: 'cp1', disks: ['vdb'] })
    expect(one.skipped[0]).toEqual({ target: 'vda', why: 'not-asked' })
    expect(planExitStatus(one)).toBe(11)
  })
})
