import { describe, expect, it } from 'vitest'
import { type BackupFacts, PlanError, planBackup, type SnapshotFacts } from '../src/index.js'
import { checkpoint, disk, domain, layer, MiB } from './facts.js'

const snapshot = (date: number, diskSize: number | undefined): SnapshotFacts => ({
  id: '1',
  name: 's',
  date,
  diskSize,
})

/** cp1 at 1000 s, cp2 at 2000 s, both with the disk's one image, of 64 MiB now. */
function facts(snapshots: readonly SnapshotFacts[], change: Partial<BackupFacts> = {}): BackupFacts {
  const then = domain([disk('vda', '/vda')])
  return {
    domain: then,
    checkpoints: [
      checkpoint('cp1', { creationTime: 1000, domain: then }),
      checkpoint('cp2', { creationTime: 2000, parent: 'cp1', domain: then }),
    ],
    chains: new Map([['vda', [layer('/vda', ['cp1', 'cp2'], { snapshots })]]]),
    ...change,
  }
}

const plan = (given: BackupFacts, incremental = 'cp1', sizeThen?: ReadonlyMap<string, number>) => {
  const { disks, nextBest } = planBackup(given, { incremental, sizeThen })
  const { mode, libvirt, reasons } = disks[0]!
  return { verdict: [mode, libvirt, ...reasons.map(({ code }) => code)], reasons, nextBest }
}
const resized = ['full', 'accept', 'disk-resized']
const fine = ['incremental', 'accept']

describe('a disk of another size than at the checkpoint', () => {
  it.each([
    ['grown since a snapshot', 1500, 32 * MiB, resized],
    ['cut since a snapshot, or cut and grown again', 1500, 128 * MiB, resized],
    ['in the second of the checkpoint', 1000, 32 * MiB, resized],
    ['before the checkpoint', 999, 32 * MiB, fine],
    ['of the size that it has now', 1500, 64 * MiB, fine],
    ['that does not say', 1500, undefined, fine],
  ])('%s', (_, date, size, wanted) => {
    expect(plan(facts([snapshot(date, size)])).verdict).toEqual(wanted)
  })

  it('is full for a newer checkpoint only if it was resized since that', () => {
    const given = facts([snapshot(1500, 32 * MiB)])
    expect(plan(given, 'cp2').verdict).toEqual(fine)
    expect(plan(given).nextBest).toMatchObject({ checkpoint: 'cp2' })
    expect(plan(given).reasons[0]).toMatchObject({
      evidence: {
        sizeThen: 32 * MiB,
        sizeNow: 64 * MiB,
        knownFrom: 'snapshot',
        snapshot: 's',
        filename: '/vda',
      },
    })
  })

  it('is believed to be where the checkpoint has no time', () => {
    const timeless = [checkpoint('cp1', { creationTime: undefined, domain: domain([disk('vda', '/vda')]) })]
    expect(plan(facts([snapshot(1, MiB)], { checkpoints: timeless })).verdict).toEqual(resized)
  })

  it('is known from the caller, for the asked checkpoint and for all before it', () => {
    const told = new Map([['vda', 32 * MiB]])
    expect(plan(facts([]), 'cp1', told).verdict).toEqual(resized)
    expect(plan(facts([]), 'cp1', told).reasons[0]!.message).toMatch(/33554432 bytes .* 67108864 now/)
    expect(plan(facts([]), 'cp1', new Map([['vda', 64 * MiB]])).verdict).toEqual(fine)
    // Of the newer one nothing was said; the older one cannot be better.
    expect(plan(facts([]), 'cp1', told).nextBest).toMatchObject({ checkpoint: 'cp2' })
    expect(plan(facts([]), 'cp2', told).nextBest).toBeUndefined()
    expect(() => plan(facts([]), 'cp1', new Map([['vdz', 1]]))).toThrow(PlanError)
  })

  it('is not one whose template is smaller, nor one whose template had a snapshot', () => {
    const over = disk('vda', '/vda', {
      backingStore: [{ type: 'file', source: '/template', format: 'qcow2' }],
    })
    const given = facts([], {
      checkpoints: [checkpoint('cp1', { creationTime: 1000, domain: domain([over]) })],
      chains: new Map([
        [
          'vda',
          [
            layer('/vda', ['cp1']),
            layer('/template', [], { virtualSize: MiB, snapshots: [snapshot(1500, MiB)] }),
          ],
        ],
      ]),
    })
    expect(plan(given).verdict).toEqual(fine)
  })
})
