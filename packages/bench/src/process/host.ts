import { mkdirSync, writeFileSync } from 'node:fs'
import { Random } from '@tidemark/testkit'
import { strewClusters } from '../engine/patterns.js'
import { type StreamedBitmap, writeStreamedImage } from './image-writer.js'

/** A host full of domains: libvirt's folders, and an image for each disk. */
export interface Host {
  readonly domains: number
  readonly disks: number
  readonly checkpoints: number
}

const GiB = 2 ** 30
const FIRST_TIME = 1_767_225_600

/**
 * Writes `FOLDER/qemu/NAME.xml`, `FOLDER/qemu/checkpoint/NAME/CP.xml` and `FOLDER/images/NAME-DISK.qcow2`: disks of 100
 * GiB with a bitmap of 64 KiB granularity for each checkpoint, all recording; the oldest two hold changes.
 *
 * @returns the images
 */
export function writeHost(folder: string, { domains, disks, checkpoints }: Host): string[] {
  const images: string[] = []
  const names = Array.from({ length: checkpoints }, (_, i) => `cp${String(i).padStart(3, '0')}`)
  mkdirSync(`${folder}/images`, { recursive: true })
  for (let i = 0; i < domains; i++) {
    const name = `web${String(i).padStart(4, '0')}`
    const targets = Array.from({ length: disks }, (_, disk) => `vd${String.fromCharCode(97 + disk)}`)
    const files = targets.map(target => `${folder}/images/${name}-${target}.qcow2`)
    for (const file of files) {
      writeStreamedImage(file, { virtualSize: 100 * GiB, bitmaps: names.map(bitmapOf) })
      images.push(file)
    }
    const domain = domainXml(name, i, targets, files)
    mkdirSync(`${folder}/qemu/checkpoint/${name}`, { recursive: true })
    writeFileSync(`${folder}/qemu/${name}.xml`, domain)
    for (const [at, checkpoint] of names.entries()) {
      const xml = checkpointXml(checkpoint, names[at - 1], FIRST_TIME + at * 86400, targets, domain)
      writeFileSync(`${folder}/qemu/checkpoint/${name}/${checkpoint}.xml`, xml)
    }
  }
  return images
}

/** Both of the oldest have the same bits: a bitmap holds all that a newer one does. */
function bitmapOf(name: string, index: number): StreamedBitmap {
  if (index > 1) return { name, granularityBits: 16 }
  const random = new Random('bench/host')
  return {
    name,
    granularityBits: 16,
    fill: cluster => strewClusters(new Uint32Array(cluster.buffer), random),
  }
}

function checkpointXml(
  name: string,
  parent: string | undefined,
  time: number,
  targets: readonly string[],
  domain: string,
): string {
  const disks = targets.map(target => `    <disk name='${target}' checkpoint='bitmap' bitmap='${name}'/>\n`)
  return (
    `<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE OVERWRITTEN AND LOST.\n-->\n\n` +
    `<domaincheckpoint>\n  <name>${name}</name>\n` +
    `${parent === undefined ? '' : `  <parent>\n    <name>${parent}</name>\n  </parent>\n`}` +
    `  <creationTime>${time}</creationTime>\n  <disks>\n${disks.join('')}  </disks>\n${domain}</domaincheckpoint>\n`
  )
}

/** As long as libvirt's own of a plain domain: some 5 KB. */
function domainXml(
  name: string,
  index: number,
  targets: readonly string[],
  files: readonly string[],
): string {
  const disks = targets.map(
    (target, i) =>
      `    <disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2' cache='none' discard='unmap'/>\n` +
      `      <source file='${files[i]}'/>\n      <backingStore/>\n      <target dev='${target}' bus='virtio'/>\n` +
      `      <address type='pci' domain='0x0000' bus='0x0${4 + i}' slot='0x00' function='0x0'/>\n    </disk>\n`,
  )
  const ports = Array.from(
    { length: 14 },
    (_, i) =>
      `    <controller type='pci' index='${i + 1}' model='pcie-root-port'>\n      <model name='pcie-root-port'/>\n` +
      `      <target chassis='${i + 1}' port='0x${(16 + i).toString(16)}'/>\n` +
      `      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x${i % 8}'/>\n    </controller>\n`,
  )
  const id = index.toString(16).padStart(12, '0')
  return (
    `<domain type='kvm'>\n  <name>${name}</name>\n  <uuid>5eab0a7d-1de0-4a5c-8e0f-${id}</uuid>\n` +
    `  <memory unit='KiB'>4194304</memory>\n  <vcpu placement='static'>2</vcpu>\n` +
    `  <os>\n    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\n    <boot dev='hd'/>\n  </os>\n` +
    `  <features>\n    <acpi/>\n    <apic/>\n  </features>\n  <cpu mode='host-model' check='partial'/>\n` +
    `  <clock offset='utc'/>\n  <on_poweroff>destroy</on_poweroff>\n  <on_reboot>restart</on_reboot>\n` +
    `  <devices>\n    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n${disks.join('')}${ports.join('')}` +
    `    <interface type='bridge'>\n      <mac address='52:54:00:00:00:01'/>\n      <source bridge='br0'/>\n` +
    `      <model type='virtio'/>\n    </interface>\n    <serial type='pty'>\n      <target port='0'/>\n    </serial>\n` +
    `    <memballoon model='virtio'/>\n  </devices>\n</domain>\n`
  )
}
