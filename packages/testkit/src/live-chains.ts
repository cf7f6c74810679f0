import type { LibvirtLab } from './libvirt-lab.js'
import { diskElements } from './libvirt-xml.js'

/** A bitmap as a running QEMU has it in memory. */
export interface LiveBitmap {
  readonly name: string
  readonly granularity: number
  readonly recording: boolean
  readonly inconsistent: boolean
  readonly corrupt: undefined
}

/** An image of a running domain's disk, in the shape of the planner's facts of a layer. */
export interface LiveLayer {
  readonly filename: string
  readonly namedAs: string
  readonly format: string
  readonly problem: undefined
  readonly virtualSize: number
  readonly compat: string | undefined
  /** QEMU holds the image, but it is QEMU that was asked. */
  readonly locked: false
  /** QEMU does not load a stale directory, so its bitmaps are just not there. */
  readonly bitmapsStale: false
  readonly bitmaps: readonly LiveBitmap[]
}

/** What is used of query-named-block-nodes. */
interface BlockNode {
  readonly 'node-name': string
  readonly drv: string
  readonly image: {
    readonly filename: string
    readonly 'virtual-size': number
    readonly 'format-specific'?: { readonly data: { readonly compat?: string } }
  }
  readonly 'dirty-bitmaps'?: readonly {
    readonly name?: string
    readonly granularity: number
    readonly recording: boolean
    readonly persistent: boolean
    readonly inconsistent?: boolean
  }[]
}

/**
 * The disks of a running domain with what QEMU has in memory of each layer, top first: what libvirt itself judges a
 * backup by. Only persistent bitmaps, as libvirt asks for.
 *
 * @returns target → layers; a drive without a medium has none
 */
export async function liveChains(lab: LibvirtLab, domain: string): Promise<Map<string, LiveLayer[]>> {
  const nodes = await lab.qmp<BlockNode[]>(domain, 'query-named-block-nodes', { flat: true })
  const byName = new Map(nodes.map(node => [node['node-name'], node]))
  const chains = new Map<string, LiveLayer[]>()
  for (const { target, indices } of diskElements(await lab.virsh('dumpxml', domain))) {
    const chain = indices.map(index => {
      const node = byName.get(`libvirt-${index}-format`)
      if (node === undefined) throw new Error(`${domain}: QEMU has no node of index ${index} of ${target}`)
      return liveLayer(node)
    })
    if (chain.length > 0) chains.set(target, chain)
  }
  return chains
}

function liveLayer({ drv, image, 'dirty-bitmaps': bitmaps = [] }: BlockNode): LiveLayer {
  return {
    filename: image.filename,
    namedAs: image.filename,
    format: drv,
    problem: undefined,
    virtualSize: image['virtual-size'],
    compat: image['format-specific']?.data.compat,
    locked: false,
    bitmapsStale: false,
    bitmaps: bitmaps.flatMap(({ name, granularity, recording, persistent, inconsistent = false }) =>
      persistent && name !== undefined
        ? [{ name, granularity, recording, inconsistent, corrupt: undefined }]
        : [],
    ),
  }
}
