/** Which disk and which layer is meant, and what stands in the way of working on a chain. */
import { PlanError } from '../errors.js'
import type { BackupFacts, DomainDisk, LayerFacts } from '../facts.js'
import { didYouMean } from '../nearest.js'
import { isAbsolutePath, normalizePath, resolveFrom } from '../paths.js'
import { placeOf } from './merge.js'
import type { OperationProblem, OperationProblemCode, Place } from './types.js'

/** A layer as it is asked for: its index from the top, or its file as the domain or an image names it. */
export type LayerRef = number | string

export interface DiskChain {
  readonly disk: DomainDisk
  readonly chain: readonly LayerFacts[]
}

/** @throws {PlanError} `disk-unknown` */
export function findDisk({ domain, chains }: BackupFacts, target: string): DiskChain {
  const disk = domain.disks.find(each => each.target === target)
  if (disk !== undefined) return { disk, chain: chains.get(target) ?? [] }
  const known = domain.disks.map(each => each.target)
  throw new PlanError(
    'disk-unknown',
    `domain '${domain.name}' has no disk '${target}'${didYouMean(target, known)} (disks: ${known.join(', ') || 'none'})`,
    { domain: domain.name, target, known },
  )
}

/**
 * The index of a layer. Digits are an index; else a name is compared with each layer's: as named and as opened.
 *
 * @throws {PlanError} `layer-unknown`
 */
export function findLayer({ disk, chain }: DiskChain, ref: LayerRef): number {
  const index = typeof ref === 'number' ? ref : /^\d+$/.test(ref) ? Number(ref) : undefined
  const found = index ?? layerNamed(disk, chain, String(ref))
  if (found >= 0 && found < chain.length) return found
  const known = chain.map(({ namedAs }) => namedAs)
  const list = known.map((name, layer) => `${layer} ${name}`).join(', ')
  throw new PlanError(
    'layer-unknown',
    `disk ${disk.target} has no layer '${ref}' (layers, 0 is the top: ${list || 'none that can be read'})`,
    { disk: disk.target, layer: String(ref), known },
  )
}

function layerNamed(disk: DomainDisk, chain: readonly LayerFacts[], name: string): number {
  let above = disk.source ?? ''
  const wanted = isAbsolutePath(name) ? normalizePath(name) : name
  return chain.findIndex(({ namedAs, filename }) => {
    const named = resolveFrom(above, namedAs)
    above = named
    return [named, namedAs, normalizePath(filename), filename].includes(wanted)
  })
}

export function problem(
  code: OperationProblemCode,
  severity: OperationProblem['severity'],
  disk: string,
  message: string,
  evidence: OperationProblem['evidence'] = {},
): OperationProblem {
  return { code, severity, disk, message, evidence }
}

export function placesOf({ disk, chain }: DiskChain): Place[] {
  return chain.map((_, layer) => placeOf(disk.target, chain, layer))
}

/**
 * What keeps anybody from working on these layers: images that cannot be opened, a malformed bitmap, a writer.
 *
 * @param layers indices; default all
 */
export function chainProblems(
  { disk, chain }: DiskChain,
  layers: readonly number[] = [...chain.keys()],
): OperationProblem[] {
  const target = disk.target
  if (chain.length === 0) {
    const message = `disk ${target} (${disk.type}) cannot be read offline, so its bitmaps are not known`
    return [problem('source-not-readable', 'unknown', target, message, { type: disk.type })]
  }
  const problems: OperationProblem[] = []
  for (const [layer, facts] of chain.entries()) {
    const { filename } = facts
    const evidence = { layer, filename }
    if (facts.problem !== undefined) {
      const { code, message } = facts.problem
      const severity = code === 'image-denied' ? 'unknown' : 'blocks'
      const text = `layer ${layer} of ${target}, ${filename}, cannot be read: ${message}`
      problems.push(problem(code, severity, target, text, { ...evidence, detail: message }))
      continue
    }
    const corrupt = facts.bitmapsStale ? undefined : facts.bitmaps.find(each => each.corrupt !== undefined)
    if (corrupt !== undefined) {
      const text = `bitmap '${corrupt.name}' in layer ${layer} of ${target}, ${filename}, is damaged: ${corrupt.corrupt}`
      problems.push(problem('bitmap-corrupt', 'blocks', target, text, { ...evidence, bitmap: corrupt.name }))
    }
    if (facts.locked && layers.includes(layer)) {
      const text = `${filename} (layer ${layer} of ${target}) is held by a writer, most likely the running domain: its bitmaps are in QEMU's memory`
      problems.push(problem('image-in-use', 'unknown', target, text, evidence))
    }
  }
  return problems
}

/** Layers that QEMU cannot merge between: their disks differ in size. */
export function sizeProblems({ disk, chain }: DiskChain, layers: readonly number[]): OperationProblem[] {
  const sizes = layers.map(layer => ({
    layer,
    filename: chain[layer]!.filename,
    virtualSize: chain[layer]!.virtualSize ?? 0,
  }))
  if (new Set(sizes.map(({ virtualSize }) => virtualSize)).size < 2) return []
  const list = sizes.map(({ layer, virtualSize }) => `layer ${layer} ${virtualSize}`).join(', ')
  const message =
    `the layers of ${disk.target} whose bitmaps must be merged differ in disk size (bytes: ${list}); only bitmaps of equal ` +
    'size can be. Grow the smaller images first (qemu-img resize); no image may be shrunk'
  return [problem('layer-size-differs', 'blocks', disk.target, message, { sizes })]
}
