/** A disk of a lab's domain. */
export interface LabDisk {
  /** `sda`, `vdb`, …: its letters choose the bus (sd scsi, vd virtio, hd ide). */
  target: string
  /** Absolute path; left out for an empty drive. */
  source?: string
  /** Default qcow2. */
  format?: string
  device?: 'disk' | 'cdrom'
  readonly?: boolean
  /** More elements of the `<disk>`, as XML. */
  more?: string
}

/** A domain of the lab: software emulation, 64 MiB, no operating system. */
export interface LabDomain {
  name: string
  disks: readonly LabDisk[]
  /** Default: libvirt makes one. */
  uuid?: string
  memoryMiB?: number
}

/** Text for an attribute in single quotes or for an element. */
export function xmlText(value: string): string {
  const names: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    "'": '&apos;',
    '"': '&quot;',
  }
  return value.replace(/[&<>'"]/g, char => names[char] as string)
}

const buses: Record<string, string> = { sd: 'scsi', vd: 'virtio', hd: 'ide' }

/** The `<disk>` element. */
export function diskXml(disk: LabDisk): string {
  const bus = buses[disk.target.slice(0, 2)] ?? 'scsi'
  const source = disk.source === undefined ? '' : `<source file='${xmlText(disk.source)}'/>`
  return [
    `<disk type='file' device='${disk.device ?? 'disk'}'>`,
    `  <driver name='qemu' type='${disk.format ?? 'qcow2'}'/>`,
    `  ${source}<target dev='${xmlText(disk.target)}' bus='${bus}'/>`,
    `  ${disk.readonly ? '<readonly/>' : ''}${disk.more ?? ''}`,
    '</disk>',
  ].join('\n')
}

/**
 * The `<domain>`. virtio-scsi lets disks be plugged and unplugged without a guest that agrees; there is
 * nothing to boot, so the firmware just waits.
 */
export function domainXml(domain: LabDomain): string {
  return `<domain type='qemu'>
  <name>${xmlText(domain.name)}</name>
  ${domain.uuid === undefined ? '' : `<uuid>${domain.uuid}</uuid>`}
  <memory unit='MiB'>${domain.memoryMiB ?? 64}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <controller type='scsi' index='0' model='virtio-scsi'/>
    ${domain.disks.map(diskXml).join('\n    ')}
    <memballoon model='none'/>
  </devices>
</domain>
`
}

/** A disk as libvirt's own XML of a running domain tells it. */
export interface SeenDisk {
  target: string
  source: string | undefined
  /** libvirt's name of the device, in a running domain. */
  alias: string | undefined
}

/** The disks of a running domain by libvirt's numbers for their images, top first: `libvirt-N-format` is QEMU's node. */
export function diskElements(xml: string): { target: string; indices: number[] }[] {
  return Array.from(xml.matchAll(/<disk .*?<\/disk>/gs), ([disk]) => {
    const own = disk.replace(/<mirror\b.*<\/mirror>/gs, '')
    return {
      target: /<target dev='([^']*)'/.exec(own)?.[1] ?? '',
      // The source's number, then those of the nested <backingStore>s; no other element has one.
      indices: Array.from(own.matchAll(/ index='(\d+)'/g), ([, index]) => Number(index)),
    }
  })
}

/** The disks in a `<domain>` that libvirt wrote; it always uses single quotes and one order. */
export function seenDisks(xml: string): SeenDisk[] {
  const attribute = (text: string, pattern: RegExp): string | undefined => {
    const value = pattern.exec(text)?.[1]
    return value?.replace(/&(apos|quot|lt|gt|amp);/g, (_, name: string) => unescaped[name] as string)
  }
  return Array.from(xml.matchAll(/<disk .*?<\/disk>/gs), ([disk]) => {
    // The backing store and a mirror have sources and formats of their own.
    const own = disk.replace(/<(backingStore|mirror)\b.*<\/\1>/gs, '')
    return {
      target: attribute(own, /<target dev='([^']*)'/) ?? '',
      source: attribute(own, /<source file='([^']*)'/),
      alias: attribute(own, /<alias name='([^']*)'/),
    }
  })
}

const unescaped: Record<string, string> = { apos: "'", quot: '"', lt: '<', gt: '>', amp: '&' }
