/** Reasons that an image gives: it cannot be read, is of the wrong format or size, or is held by a writer. */
import type { DiskMirror, DomainDisk, LayerFacts, LayerProblem } from '../facts.js'
import { type Reason, reason } from './reasons.js'

const PROBLEM_ADVICE: Record<LayerProblem['code'], string> = {
  'image-missing':
    'is not there. Restore it, or tell where the images are now (--map-source OLD=NEW); without it the disk cannot ' +
    'be read at all',
  'image-unreadable': 'cannot be read. Look at the storage under it',
  'image-inaccessible':
    'cannot be opened by who asks here, which says nothing of libvirt. Plan as a user who may read it (root, most likely)',
  'image-corrupt':
    'is damaged, and QEMU refuses to open it. tidemark info says what is wrong; repair it or restore it before anything else',
  'image-unsupported': 'uses a feature that is not supported here. A newer tool may be able to read it',
  'image-denied': 'was not opened, since the caller does not allow that reference. Allow it, then plan again',
  'backing-cycle':
    'names itself as its own backing file, directly or in a circle. Mend its backing file name',
}

/** What our own caller denies or may not open libvirt may well open, so nothing is known; all else is libvirt's too. */
export function layerProblem(
  target: string,
  layer: number,
  facts: LayerFacts,
  problem: LayerProblem,
): Reason {
  const place = layer === 0 ? `The image of ${target}` : `Layer ${layer} of ${target}'s chain`
  const message = `${place}, ${facts.filename}, ${PROBLEM_ADVICE[problem.code]}. (${problem.message})`
  const ours = problem.code === 'image-denied' || problem.code === 'image-inaccessible'
  const severity = ours ? 'unknown' : 'blocks'
  return reason(problem.code, severity, message, { layer, filename: facts.filename, detail: problem.message })
}

export function sourceNotReadable(disk: DomainDisk): Reason {
  return reason(
    'source-not-readable',
    'unknown',
    `Disk ${disk.target} (${disk.type}: ${disk.source}${disk.sliced ? ', a part of it' : ''}) cannot be read offline, ` +
      'so its bitmaps are not known. Plan ' +
      'where it can be read, ask libvirt while the domain runs, or copy the disk whole.',
    { type: disk.type },
  )
}

export function notQcow2(disk: DomainDisk, format: string, declaredBy: 'domain' | 'image'): Reason {
  const who = declaredBy === 'domain' ? 'the domain declares it as' : 'its image is'
  return reason(
    'not-qcow2',
    'blocks',
    `Disk ${disk.target} (${disk.source}) cannot hold bitmaps: ${who} ${format}, and only qcow2 has them. Copy it ` +
      'whole every time, or convert it to qcow2.',
    { format, declaredBy },
  )
}

export function imageInUse(
  disk: DomainDisk,
  layer: number,
  facts: LayerFacts,
  onDisk: string | undefined,
): Reason {
  return reason(
    'image-in-use',
    'unknown',
    `${facts.filename} (layer ${layer} of ${disk.target}) is held by a writer, most likely the running domain: its ` +
      "bitmaps are in QEMU's memory, and those on disk are behind. Shut the domain down and plan again, or let " +
      `libvirt make the backup.${onDisk === undefined ? '' : ` (As the disk has it now: ${onDisk}.)`}`,
    { layer, filename: facts.filename, ...(onDisk === undefined ? {} : { onDisk }) },
  )
}

/** QEMU merges only bitmaps of equal disk sizes, so its transaction, and libvirt's backup with it, fails. */
export function layerSizeDiffers(
  disk: DomainDisk,
  layers: readonly number[],
  chain: readonly LayerFacts[],
): Reason {
  const sizes = layers.map(layer => {
    const { filename, virtualSize } = chain[layer]!
    return { layer, filename, virtualSize: virtualSize ?? 0 }
  })
  const list = sizes.map(({ filename, virtualSize }) => `${filename} ${virtualSize}`).join(', ')
  return reason(
    'layer-size-differs',
    'blocks',
    `The layers of ${disk.target} whose bitmaps must be merged differ in disk size (bytes: ${list}): the disk was ` +
      'resized between them, and QEMU merges only bitmaps of equal size. Copy it whole.',
    { sizes },
  )
}

/** What the guest writes goes into an overlay that QEMU throws away; libvirt runs no block job on such a disk. */
export function transientDisk(disk: DomainDisk): Reason {
  return reason(
    'disk-transient',
    'blocks',
    `Disk ${disk.target} (${disk.source}) is transient: what the guest writes is thrown away at shutdown, and libvirt ` +
      'makes no backup of it. While the domain is off its image can be copied whole.',
    { source: disk.source ?? '' },
  )
}

/** libvirt begins no backup of a disk with a block job; and once the job pivots, the disk's top is another image. */
export function mirroredDisk(disk: DomainDisk, mirror: DiskMirror): Reason {
  const job = mirror.job ?? 'copy'
  return reason(
    'disk-mirrored',
    'unknown',
    `A block job (${job}) is copying disk ${disk.target} (${disk.source}) to ${mirror.source ?? 'another image'}, and ` +
      'the domain may go on there: which image and which bitmaps count is not known before it ends. End it (virsh ' +
      `blockjob ${disk.target} --pivot or --abort) and plan again.`,
    { job },
  )
}

/** Bitmaps hold what this domain's QEMU wrote, and nobody else. */
export function shareableDisk(disk: DomainDisk): Reason {
  return reason(
    'disk-shareable',
    'blocks',
    `Disk ${disk.target} (${disk.source}) is shareable: what other domains write to it is in none of its bitmaps. ` +
      'Copy it whole.',
    { source: disk.source ?? '' },
  )
}

/** What holds of images whatever the bitmaps say: notes. */
export function imageNotes(disk: DomainDisk, chain: readonly LayerFacts[]): Reason[] {
  return chain.flatMap((facts, layer) => {
    const { ownBacking, dataFileRaw } = facts
    return [
      ...(ownBacking === undefined ? [] : [backingDiffers(disk, layer, facts, ownBacking, chain[layer + 1])]),
      ...(dataFileRaw === undefined ? [] : [rawDataFile(disk, layer, facts, dataFileRaw)]),
    ]
  })
}

function backingDiffers(
  disk: DomainDisk,
  layer: number,
  { filename }: LayerFacts,
  header: string,
  below: LayerFacts | undefined,
): Reason {
  const message =
    `The domain has ${below === undefined ? 'nothing' : below.filename} below ${filename} (layer ${layer} of ` +
    `${disk.target}), but the image itself names ${header === '' ? 'no backing file' : header}. libvirt goes by the ` +
    'domain, and so does this plan; qemu-img, tidemark dump and with them --format sh go by the image and would read ' +
    'another disk. Make them agree: qemu-img rebase -u, or mend the XML.'
  return reason('backing-file-differs', 'note', message, {
    layer,
    filename,
    header,
    below: below?.filename ?? null,
  })
}

/** Whoever opens it as the raw image that it is passes by the bitmaps. */
function rawDataFile(disk: DomainDisk, layer: number, { filename }: LayerFacts, dataFile: string): Reason {
  const message =
    `The data of ${filename} (layer ${layer} of ${disk.target}) are in ${dataFile}, a raw image by itself: what was ` +
    'written to that without the qcow2 file is in no bitmap. If anything may have done so, copy the disk whole.'
  return reason('data-file-raw', 'note', message, { layer, filename, dataFile })
}
