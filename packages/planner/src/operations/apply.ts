import type {
  BackingStore,
  BackupFacts,
  BitmapFacts,
  CheckpointFacts,
  DomainDisk,
  LayerFacts,
} from '../facts.js'
import { placeOf } from './merge.js'
import { fileNames } from './shared-layers.js'
import type { BitmapOperation, Place } from './types.js'

/**
 * A chain's facts after the operations on its layers; those on other images are passed over. What a merge adds shows in
 * no fact but a corrupt source's.
 */
export function applyToChain(
  chain: readonly LayerFacts[],
  operations: readonly BitmapOperation[],
): readonly LayerFacts[] {
  return chain.map((facts, layer) => ({
    ...facts,
    bitmaps: applyToBitmaps(facts.bitmaps, operations, place => place.layer === layer),
  }))
}

/** The bitmaps of one image after those operations that are on it. */
export function applyToBitmaps(
  before: readonly BitmapFacts[],
  operations: readonly BitmapOperation[],
  isHere: (place: Place) => boolean,
): readonly BitmapFacts[] {
  let bitmaps = [...before]
  const change = (name: string, fields: Partial<BitmapFacts>) => {
    bitmaps = bitmaps.map(each => (each.name === name ? { ...each, ...fields } : each))
  }
  for (const operation of operations) {
    if (!isHere(operation)) continue
    const { bitmap: name, kind } = operation
    switch (kind) {
      case 'add': {
        const { granularity, disabled } = operation
        const added = { name, granularity, recording: !disabled, inconsistent: false, corrupt: undefined }
        if (operation.persistent) bitmaps.push(added)
        break
      }
      case 'remove':
        bitmaps = bitmaps.filter(each => each.name !== name)
        break
      case 'enable':
        change(name, { recording: true })
        break
      case 'disable':
        change(name, { recording: false })
        break
      default:
    }
  }
  return bitmaps
}

/** The facts after the operations, on whichever disks an image is a layer of. */
export function applyToFacts(facts: BackupFacts, operations: readonly BitmapOperation[]): BackupFacts {
  const fileOf = fileNames(facts)
  const files = operations.map(fileOf)
  const chains = [...facts.chains].map(([disk, chain]): [string, readonly LayerFacts[]] => {
    const own = chain.map((layer, i) => {
      const file = fileOf(placeOf(disk, chain, i))
      const here = operations.filter((_, n) => files[n] === file)
      return { ...layer, bitmaps: applyToBitmaps(layer.bitmaps, here, () => true) }
    })
    return [disk, own]
  })
  return { ...facts, chains: new Map(chains) }
}

/** An image that does not exist yet, with the bitmaps that the operations add to it. */
export function newImage(place: Place, like: LayerFacts, operations: readonly BitmapOperation[]): LayerFacts {
  const { disk, filename, layer } = place
  const bitmaps = applyToBitmaps([], operations, each => each.disk === disk && each.layer === layer)
  return {
    ...{ ...like, filename, namedAs: filename, format: 'qcow2', compat: '1.1', problem: undefined },
    ...{ bitmapsStale: false, bitmaps, snapshots: [], fileId: undefined },
  }
}

/** A disk's chain, and the domain's own account of it. */
export function withChain(
  facts: BackupFacts,
  target: string,
  chain: readonly LayerFacts[] | undefined,
): BackupFacts {
  if (chain === undefined) return facts
  const disks = facts.domain.disks.map(disk => (disk.target === target ? renamed(disk, chain) : disk))
  return {
    ...facts,
    chains: new Map(facts.chains).set(target, chain),
    domain: { ...facts.domain, disks },
  }
}

function renamed(disk: DomainDisk, [top, ...below]: readonly LayerFacts[]): DomainDisk {
  if (top === undefined || top.namedAs === disk.source) return disk
  const stores = below.map(({ namedAs, format }): BackingStore => ({ type: 'file', source: namedAs, format }))
  const { backingStoreGoesOn, ...rest } = disk
  return { ...rest, source: top.namedAs, format: top.format, backingStore: stores }
}

/** A checkpoint's children get its parent, as libvirt does it. */
export function withoutCheckpoint(
  checkpoints: readonly CheckpointFacts[],
  name: string,
): readonly CheckpointFacts[] {
  const parent = checkpoints.find(each => each.name === name)?.parent
  return checkpoints
    .filter(each => each.name !== name)
    .map(each => (each.parent === name ? { ...each, parent } : each))
}
