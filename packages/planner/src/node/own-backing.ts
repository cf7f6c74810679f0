import { type ChainLayer, fullBackingName, parseBackingName } from '@tidemark/qcow2'
import type { DomainDisk, LayerFacts } from '../facts.js'
import { normalizePath } from '../paths.js'
import { fileId } from './file-ids.js'
import { type MapRule, mapSource } from './map-source.js'

/**
 * Marks the layers whose own header names another backing file than the domain's `<backingStore>` does. libvirt goes by
 * the domain; what opens the image by itself (qemu-img, tidemark dump) goes by the header and sees another disk.
 *
 * @param layers of a disk whose XML says what its chain is
 */
export function withOwnBacking(
  disk: DomainDisk,
  layers: readonly ChainLayer[],
  facts: readonly LayerFacts[],
  rules: readonly MapRule[],
): LayerFacts[] {
  return facts.map((own, i) => {
    const { inspection, namedAs, filename } = layers[i]!
    if (inspection === undefined || own.problem !== undefined) return own
    const below = facts[i + 1]
    // After the last element of an open end the header itself was asked.
    if (below === undefined && disk.backingStoreGoesOn === true) return own
    const name = inspection.backingFile ?? ''
    if (below === undefined) return name === '' ? own : { ...own, ownBacking: name }
    if (i >= disk.backingStore!.length || below.problem !== undefined) return own
    const same = name !== '' && candidates(name, namedAs, filename, rules).some(path => isFile(path, below))
    return same ? own : { ...own, ownBacking: name }
  })
}

/** Where a backing file's name may lead: as its host knew it, and as it is here. */
function candidates(name: string, namedAs: string, filename: string, rules: readonly MapRule[]): string[] {
  const named = parseBackingName(name)
  if (named.kind !== 'path') return []
  return [namedAs, filename].map(from => mapSource(rules, fullBackingName(from, named.path)))
}

function isFile(path: string, { filename, namedAs, fileId: id }: LayerFacts): boolean {
  const normal = normalizePath(path)
  if (normal === normalizePath(filename) || normal === normalizePath(namedAs)) return true
  return id !== undefined && fileId(path) === id
}
