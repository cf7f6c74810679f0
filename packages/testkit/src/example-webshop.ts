import { chmodSync, cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { LibvirtLab } from './libvirt-lab.js'
import { type DirtyExtent, dirtyMaps } from './nbd.js'
import { check } from './qemu-img.js'

const KiB = 1024
const MiB = 1024 * KiB
const domain = 'webshop'
const checkpoints = ['monday', 'tuesday', 'wednesday']
const targets = ['sda', 'sdb', 'sdc']
/** Monday is 2026-03-02, each at 02:00 UTC: a nightly backup. */
const createdAt = (day: number): number => Date.UTC(2026, 2, 2 + day, 2) / 1000

/** Checkpoint → target → what libvirt says of an incremental backup. */
export type Verdicts = Record<string, Record<string, 'accept' | 'reject'>>

/** File name → bitmap → its extents, as nbdinfo prints them. */
export type DirtyMaps = Record<string, Record<string, DirtyExtent[]>>

/** What came out, besides the files. */
export interface Example {
  verdicts: Verdicts
  dirtyMaps: DirtyMaps
}

/**
 * Makes the example by the real libvirt: three disks, three checkpoints, guest writes between them, one disk
 * plugged in after the first checkpoint, one with an overlay since before the last; then a clean shutdown.
 *
 * @param outDir gets `libvirt/`, `images/`, `libvirt-verdicts.json` and `dirty-maps.json`; what was there goes.
 * @param imagesDir where the images are while it is made, and so in the XML. It must not exist yet.
 * @throws Error when `imagesDir` exists, when a peer fails, or when libvirt's verdict changes by a restart.
 */
export async function makeWebshop(outDir: string, imagesDir: string): Promise<Example> {
  if (existsSync(imagesDir)) throw new Error(`${imagesDir} exists: it may be someone's domain`)
  const lab = await LibvirtLab.start()
  try {
    mkdirSync(imagesDir, { recursive: true })
    lab.own(imagesDir)
    await tellStory(lab, imagesDir)
    const verdicts = await allVerdicts(lab)
    await lab.destroyDomain(domain)

    const images = ['root.qcow2', 'data.qcow2', 'data.overlay.qcow2', 'logs.qcow2']
    const maps: DirtyMaps = {}
    for (const image of images) {
      const found = await check(join(imagesDir, image))
      if (found.status !== 0) throw new Error(`${image}: ${JSON.stringify(found)}`)
      maps[image] = Object.fromEntries(await dirtyMaps(join(imagesDir, image)))
    }
    for (const part of ['libvirt', 'images']) rmSync(join(outDir, part), { recursive: true, force: true })
    const metadata = [
      `qemu/${domain}.xml`,
      ...checkpoints.map(name => `qemu/checkpoint/${domain}/${name}.xml`),
    ]
    for (const file of metadata) copy(join(lab.libvirtRoot, file), join(outDir, 'libvirt', file))
    for (const image of images) copy(join(imagesDir, image), join(outDir, 'images', image))

    // What a plan is made from is the state on disk: libvirt must say the same of it as it did before.
    await lab.startDomain(domain)
    const again = JSON.stringify(await allVerdicts(lab))
    if (again !== JSON.stringify(verdicts)) throw new Error(`after a restart libvirt says ${again}`)
    writeFileSync(join(outDir, 'libvirt-verdicts.json'), `${JSON.stringify(verdicts, null, 2)}\n`)
    writeFileSync(join(outDir, 'dirty-maps.json'), mapsText(maps))
    return { verdicts, dirtyMaps: maps }
  } finally {
    await lab.stop()
    rmSync(imagesDir, { recursive: true, force: true })
  }
}

async function tellStory(lab: LibvirtLab, imagesDir: string): Promise<void> {
  const write = (target: string, pattern: number, offset: number, length: number): Promise<void> =>
    lab.guestWrite(domain, target, pattern, offset, length)
  const image = (name: string): string => join(imagesDir, name)
  // Small clusters keep the images small; different ones give the bitmaps different granularities.
  await lab.createImage(image('root.qcow2'), '64M', { clusterSize: 16 * KiB })
  await lab.createImage(image('data.qcow2'), '96M', { clusterSize: 16 * KiB })
  await lab.createImage(image('logs.qcow2'), '32M', { clusterSize: 4 * KiB })
  await lab.defineDomain({
    name: domain,
    uuid: '5eab0a7d-1de0-4a5c-8e0f-77eb54090001',
    disks: [
      { target: 'sda', source: image('root.qcow2') },
      { target: 'sdb', source: image('data.qcow2') },
    ],
  })
  await lab.startDomain(domain)
  await write('sda', 0x10, 0, 96 * KiB)
  await write('sdb', 0x11, 8 * MiB, 48 * KiB)

  await checkpoint(lab, 0, 'Before the week begins')
  await write('sda', 0x20, 1 * MiB, 20 * KiB)
  await write('sdb', 0x21, 8 * MiB + 16 * KiB, 40 * KiB)
  await lab.attachDisk(domain, { target: 'sdc', source: image('logs.qcow2') })
  await write('sdc', 0x22, 0, 6 * KiB)

  await checkpoint(lab, 1, 'The log disk is new')
  await write('sda', 0x30, 5 * MiB, 512)
  await write('sdb', 0x31, 40 * MiB, 33 * KiB)
  await write('sdc', 0x32, 6 * KiB, 9 * KiB)
  await lab.snapshot(domain, 'before-upgrade', { sdb: image('data.overlay.qcow2') })
  await write('sdb', 0x33, 40 * MiB + 32 * KiB, 16 * KiB)

  await checkpoint(lab, 2, 'After the upgrade')
  await write('sda', 0x40, 64 * MiB - 512, 512)
  await write('sdb', 0x41, 90 * MiB, 17 * KiB)
  await write('sdc', 0x42, 15 * KiB, 1 * KiB)
}

/** Redefined with a fixed time, so that the example comes out the same each time it is made. */
async function checkpoint(lab: LibvirtLab, day: number, description: string): Promise<void> {
  const name = checkpoints[day] as string
  await lab.checkpoint(domain, name, { description })
  const xml = await lab.virsh('checkpoint-dumpxml', domain, name, '--security-info')
  await lab.redefineCheckpoint(
    domain,
    xml.replace(/(?<=<creationTime>)\d+/, () => String(createdAt(day))),
  )
}

async function allVerdicts(lab: LibvirtLab): Promise<Verdicts> {
  const verdicts: Verdicts = {}
  for (const name of checkpoints) {
    const row: Record<string, 'accept' | 'reject'> = {}
    for (const target of targets) row[target] = (await lab.backupVerdict(domain, name, target)).verdict
    verdicts[name] = row
  }
  return verdicts
}

function copy(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true })
  cpSync(from, to)
  // libvirt and QEMU write for themselves alone; a checkout is for all to read.
  chmodSync(to, 0o644)
}

/** JSON with one extent a line, for people and for diffs. */
function mapsText(maps: DirtyMaps): string {
  const list = (parts: string[], open: string, close: string, indent: string): string =>
    `${open}\n${parts.map(part => `${indent}  ${part}`).join(',\n')}\n${indent}${close}`
  const images = Object.entries(maps).map(([image, bitmaps]) => {
    const rows = Object.entries(bitmaps).map(([name, extents]) => {
      const lines = extents.map(extent => JSON.stringify(extent))
      return `${JSON.stringify(name)}: ${list(lines, '[', ']', '    ')}`
    })
    return `${JSON.stringify(image)}: ${list(rows, '{', '}', '  ')}`
  })
  return `${list(images, '{', '}', '')}\n`
}
