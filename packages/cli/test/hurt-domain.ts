import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { type LabDisk, type LibvirtLab, qemuImg, qemuIoCrash, Random, run } from '@tidemark/testkit'

export const domain = 'hurt'
export const checkpoints = ['cp1', 'cp2', 'cp3'] as const
export type Checkpoint = (typeof checkpoints)[number]

const MiB = 2 ** 20
const uuid = '5eab0a7d-1de0-4a5c-8e0f-77eb5409c11e'

/** What a plan says of a disk since each checkpoint: the codes of the reasons that block, or none. */
export interface Expectation {
  readonly libvirt: 'accept' | 'reject'
  readonly codes: readonly string[]
}

const good: Expectation = { libvirt: 'accept', codes: [] }
const refused = (...codes: string[]): Expectation => ({ libvirt: 'reject', codes })
/** libvirt would accept, wrongly. */
const trap = (...codes: string[]): Expectation => ({ libvirt: 'accept', codes })
const each = (all: Expectation): [Expectation, Expectation, Expectation] => [all, all, all]

/** One disk for each thing that can happen to a disk, with what must be said of it since cp1, cp2 and cp3. */
export const disks: Record<string, { readonly story: string; readonly says: readonly Expectation[] }> = {
  sda: { story: 'nothing special', says: each(good) },
  sdb: { story: "checkpoint='no' in cp2", says: [good, refused('disk-excluded'), good] },
  sdc: { story: 'raw', says: each(refused('disk-excluded', 'not-qcow2')) },
  sdd: { story: 'an external snapshot after cp1', says: each(good) },
  sde: { story: "cp2's bitmap removed by qemu-img", says: [good, refused('bitmap-missing'), good] },
  sdf: { story: "cp1's bitmap disabled by qemu-img", says: [refused('bitmap-disabled'), good, good] },
  sdg: { story: 'opened by a qemu-io that died', says: each(refused('bitmap-inconsistent')) },
  sdh: {
    story: 'a snapshot after cp1, then an image put between by hand',
    says: [refused('bitmap-gap'), good, good],
  },
  sdi: { story: 'an overlay made by qemu-img create -b', says: each(refused('bitmap-missing')) },
  sdj: { story: 'another image at the same target', says: each(refused('disk-source-changed')) },
  sdk: { story: 'another image with bitmaps of the same names', says: each(trap('disk-source-changed')) },
  sdl: { story: 'hotplugged after cp1', says: [refused('disk-not-in-checkpoint'), good, good] },
  sdm: { story: 'its autoclear bit cleared', says: each(refused('bitmaps-stale')) },
  sdn: {
    story: 'a snapshot after cp1, the overlay grown later',
    says: [refused('layer-size-differs'), good, good],
  },
  sdo: { story: "cp1's bitmap cleared by qemu-img", says: [trap('bitmap-subset-violated'), good, good] },
  vda: {
    story: 'a snapshot after cp2, the base stale',
    says: [trap('bitmaps-stale'), trap('bitmaps-stale'), good],
  },
  vdb: {
    story: 'a snapshot after cp2, the base opened by a qemu-io that died',
    says: [refused('bitmap-inconsistent'), refused('bitmap-inconsistent'), good],
  },
  vdd: { story: 'was vdc, plugged in elsewhere while off', says: each(good) },
  vde: {
    story: "a snapshot after cp2, the base's cp1 removed",
    says: [trap('bitmap-missing'), good, good],
  },
}

const clusterSizes = [4096, 65536, 65536, 2 * MiB, 16384]

/** Tells the domain's whole story by the real libvirt, then hurts its images while it is off. */
export async function makeHurtDomain(lab: LibvirtLab): Promise<void> {
  const random = new Random('hurt domain')
  const first = [...Object.keys(disks).filter(name => name !== 'sdl' && name !== 'vdd'), 'vdc']
  const base = (target: string): string => lab.image(`${target}.qcow2`)
  for (const [i, target] of [...first, 'sdl'].entries()) {
    const clusterSize = clusterSizes[i % clusterSizes.length]!
    if (target === 'sdc') await lab.createImage('sdc.raw', '16M', { format: 'raw' })
    else await lab.createImage(base(target), '16M', { clusterSize })
  }
  const disk = (target: string): LabDisk =>
    target === 'sdc'
      ? { target, source: lab.image('sdc.raw'), format: 'raw' }
      : { target, source: base(target) }
  const drive: LabDisk = { target: 'hda', device: 'cdrom', format: 'raw', readonly: true }
  await lab.defineDomain({ name: domain, uuid, disks: [...first.map(disk), drive] })
  await lab.startDomain(domain)

  let present = first
  const writes = async (): Promise<void> => {
    for (const target of present) {
      const offset = random.int(0, 15 * 2048) * 512
      await lab.guestWrite(domain, target, random.int(1, 255), offset, random.int(1, 400) * 512)
    }
  }
  const checkpoint = (name: string, ...without: string[]): Promise<void> =>
    lab.checkpoint(domain, name, {
      disks: present
        .map(each => `<disk name='${each}' checkpoint='${without.includes(each) ? 'no' : 'bitmap'}'/>`)
        .join(''),
    })
  const snapshot = (name: string, ...targets: string[]): Promise<void> =>
    lab.snapshot(
      domain,
      name,
      Object.fromEntries(targets.map(target => [target, lab.image(`${target}.overlay.qcow2`)])),
    )

  await writes()
  await checkpoint('cp1', 'sdc')
  await writes()
  await lab.attachDisk(domain, disk('sdl'))
  present = [...present, 'sdl']
  await snapshot('s1', 'sdd', 'sdh', 'sdn')
  await writes()
  await checkpoint('cp2', 'sdc', 'sdb')
  await writes()
  await snapshot('s2', 'vda', 'vdb', 'vde')
  await writes()
  await checkpoint('cp3', 'sdc')
  await writes()
  await lab.destroyDomain(domain)
  const sources = await hurtImages(lab, base)
  const last = Object.keys(disks).map(target => ({ ...disk(target), ...sources[target] }))
  await lab.defineDomain({ name: domain, uuid, disks: [...last, drive] })
}

/** @returns the sources that are no longer the first image of the disk */
async function hurtImages(
  lab: LibvirtLab,
  base: (target: string) => string,
): Promise<Record<string, { source: string }>> {
  const overlay = (target: string): string => lab.image(`${target}.overlay.qcow2`)
  await qemuImg.bitmap('--remove', base('sde'), 'cp2')
  await qemuImg.bitmap('--disable', base('sdf'), 'cp1')
  await qemuIoCrash(base('sdg'), ['read -q 0 512'])
  const between = await lab.createImage('sdh.between.qcow2', undefined, { backing: base('sdh') })
  await run('qemu-img', ['rebase', '-u', '-F', 'qcow2', '-b', between, overlay('sdh')])
  await lab.createImage(overlay('sdi'), undefined, { backing: base('sdi') })
  await lab.createImage('sdj.other.qcow2', '16M')
  const other = await lab.createImage('sdk.other.qcow2', '16M')
  for (const name of checkpoints) await qemuImg.bitmap('--add', other, name)
  clearAutoclear(base('sdm'))
  await qemuImg.resize(overlay('sdn'), '32M')
  await qemuImg.bitmap('--clear', base('sdo'), 'cp1')
  clearAutoclear(base('vda'))
  await qemuIoCrash(base('vdb'), ['read -q 0 512'])
  await qemuImg.bitmap('--remove', base('vde'), 'cp1')
  return {
    ...Object.fromEntries(
      ['sdd', 'sdh', 'sdi', 'sdn', 'vda', 'vdb', 'vde'].map(target => [target, { source: overlay(target) }]),
    ),
    sdj: { source: lab.image('sdj.other.qcow2') },
    sdk: { source: other },
    vdd: { source: base('vdc') },
  }
}

/** What a program that does not know bitmaps does: autoclear bit 0, in the last of the bytes 88 to 95. */
function clearAutoclear(file: string): void {
  const fd = openSync(file, 'r+')
  try {
    const byte = new Uint8Array(1)
    readSync(fd, byte, 0, 1, 95)
    byte[0]! &= 0xfe
    writeSync(fd, byte, 0, 1, 95)
  } finally {
    closeSync(fd)
  }
}
