import { Qcow2Error } from '../errors.js'
import { putU64 } from '../format/bytes.js'
import { extensionMagic, type HeaderExtension } from '../format/extensions.js'
import { autoclear } from '../format/features.js'
import type { ImageInspection } from '../image/inspect.js'

/** Where the new directory is; undefined: no bitmaps are left. */
export interface NewDirectory {
  readonly count: number
  readonly offset: number
  readonly bytes: number
}

/** What a switch must know of an image. */
export type SwitchedImage = Pick<ImageInspection, 'storage' | 'header' | 'clusterSize' | 'extensions'>

/** Bytes of cluster 0 that are written at once. What follows waits until they last. */
export interface HeaderWrite {
  readonly what: string
  readonly offset: number
  readonly bytes: Uint8Array
}

export const SECTOR = 512
export const AUTOCLEAR_AT = 88
const BACKING_OFFSET_AT = 8
const EXTENSION_BYTES = 32
export const KNOWN_AUTOCLEAR = autoclear.bitmaps | autoclear.rawExternalData | autoclear.unfinishedEdit
/** An extension that is none any more: 'tmpd'. Programs keep what they do not know. */
export const RETIRED_MAGIC = 0x746d7064

/**
 * The writes that make a new directory the image's own, each within one sector of 512 bytes and made to last before
 * the next: whatever comes between, the image has its old bitmaps or its new ones. Where the extension begins in the
 * sector of the autoclear bits, as where QEMU puts it in an image without a backing file, both change in one write.
 *
 * @param start cluster 0, as it is now
 * @throws {Qcow2Error} `no-space` where cluster 0 has no room for the extension
 */
export function planSwitch(
  image: SwitchedImage,
  directory: NewDirectory | undefined,
  start: Uint8Array,
): HeaderWrite[] {
  const extension = image.extensions.findLast(({ magic }) => magic === extensionMagic.bitmaps)
  const flags = image.header.autoclearFeatures
  // Bits that nobody here knows: what they say is no longer so once the image was written to.
  const known = flags & KNOWN_AUTOCLEAR
  const unknownCleared = setAutoclear('unknown autoclear bits are cleared', known)
  const now = start.slice()
  now.set(unknownCleared.bytes, AUTOCLEAR_AT)
  let writes: HeaderWrite[] = []
  if (directory !== undefined && extension !== undefined) {
    writes = replaced(extension.offset, extension.data, directory, known)
  } else if (directory !== undefined) writes = added(image, directory, known, now)
  else if (extension !== undefined) {
    writes = removed(image.extensions.slice(image.extensions.indexOf(extension)), known, now)
  }
  if (known === flags || writes[0]?.offset === AUTOCLEAR_AT) return writes
  return [unknownCleared, ...writes]
}

/**
 * The last bitmap is gone. Without autoclear bit 0 an extension says nothing, so in two writes the bit goes first.
 *
 * @param extensions that of the bitmaps, and those behind it
 */
function removed(extensions: readonly HeaderExtension[], flags: bigint, start: Uint8Array): HeaderWrite[] {
  const [{ offset }, ...others] = extensions as [HeaderExtension, ...HeaderExtension[]]
  const off = setAutoclear('the bitmaps are let go (autoclear bit 0)', flags & ~autoclear.bitmaps)
  const what = 'the switch: the bitmaps extension ends, and autoclear bit 0'
  // Where the others can move up at once they do: else there is one more that is retired each time.
  const closed = { what, offset: offset - 8, bytes: without(others, offset - 8, start) }
  const whole = atOnce(what, [off, closed], start)
  if (whole.length === 1) return whole
  const end: HeaderWrite = {
    what: 'the bitmaps extension ends',
    offset: offset - 8,
    bytes: others.length === 0 ? new Uint8Array(8) : u32(RETIRED_MAGIC),
  }
  return atOnce(what, [off, end], start)
}

/** Those of the extensions that are not retired, one behind the other, and zeros up to where they ended. */
function without(others: readonly HeaderExtension[], at: number, start: Uint8Array): Uint8Array {
  const bytes = new Uint8Array((others.length === 0 ? at + 8 : endOf(others.at(-1)!)) - at)
  let length = 0
  for (const each of others) {
    if (each.magic === RETIRED_MAGIC) continue
    bytes.set(start.subarray(each.offset - 8, endOf(each)), length)
    length += endOf(each) - (each.offset - 8)
  }
  return bytes
}

/** Padded. */
function endOf({ offset, data }: HeaderExtension): number {
  return offset + Math.ceil(data.byteLength / 8) * 8
}

/** The payload's 24 bytes, in one sector if they lie in one; else those that change, if these do. */
function replaced(at: number, before: Uint8Array, directory: NewDirectory, flags: bigint): HeaderWrite[] {
  const what = 'the switch: the bitmaps extension names the new directory'
  const after = payload(directory)
  const changed = after.map((byte, i) => byte ^ before[i]!)
  const first = changed.findIndex(byte => byte !== 0)
  if (first < 0) return []
  const end = changed.findLastIndex(byte => byte !== 0) + 1
  const write = { what, offset: at + first, bytes: after.slice(first, end) }
  if (oneSector(write)) return [write]
  // Over a sector's boundary: while half of it may be new the bitmaps are nobody's.
  return [
    setAutoclear(
      'the bitmaps extension lies over a boundary of sectors: autoclear bit 0 is cleared',
      flags & ~autoclear.bitmaps,
    ),
    write,
    setAutoclear('autoclear bit 0 is set again', flags),
  ]
}

/** The first bitmap: an extension where the others end, which is nothing until autoclear bit 0 says so. */
function added(
  image: SwitchedImage,
  directory: NewDirectory,
  flags: bigint,
  start: Uint8Array,
): HeaderWrite[] {
  const { header, clusterSize, extensions } = image
  const backingName = start.subarray(
    header.backingFileOffset,
    header.backingFileOffset === 0 ? 0 : header.backingFileOffset + header.backingFileSize,
  )
  const on = setAutoclear('the bitmaps hold (autoclear bit 0)', flags | autoclear.bitmaps)
  /** Where nobody looks yet: the content; then what makes an extension of it, and the bit. */
  const shown = (content: HeaderWrite, begin: HeaderWrite): HeaderWrite[] => {
    const what = 'the switch: the bitmaps extension and autoclear bit 0'
    const whole = atOnce(what, [content, begin, on], start)
    return whole.length === 1 ? whole : [content, ...atOnce(what, [begin, on], start)]
  }
  const retired = extensions.find(({ magic, data }) => magic === RETIRED_MAGIC && data.byteLength === 24)
  if (retired !== undefined) {
    return shown(
      { what: 'the bitmaps extension', offset: retired.offset, bytes: payload(directory) },
      {
        what: 'the bitmaps extension is one again',
        offset: retired.offset - 8,
        bytes: u32(extensionMagic.bitmaps),
      },
    )
  }
  const last = extensions.at(-1)
  const at = last === undefined ? header.headerLength : endOf(last)
  const end = at + EXTENSION_BYTES + 8
  const writes: HeaderWrite[] = []
  let limit = clusterSize
  // QEMU looks for extensions up to where a name begins, even an empty one.
  const from: number = header.backingFileOffset
  if (from !== 0 && from < end) {
    // Behind itself, so that it is there twice before anybody looks for it there.
    const to = Math.ceil(Math.max(end, from + backingName.byteLength) / 8) * 8
    if (to + backingName.byteLength > clusterSize) throw noRoom(image)
    if (backingName.byteLength > 0) {
      writes.push({ what: "the backing file's name, once more", offset: to, bytes: backingName })
    }
    if (from >= at + 8)
      writes.push({ what: 'the header names the copy', offset: BACKING_OFFSET_AT, bytes: u64(to) })
    else {
      // The extensions end where the name begins, without an END: that has to be there as soon as the name is not.
      const bytes = new Uint8Array(at + 8 - BACKING_OFFSET_AT)
      bytes.set(start.subarray(BACKING_OFFSET_AT, at))
      bytes.set(u64(to))
      const write = {
        what: 'the header names the copy, and the extensions end',
        offset: BACKING_OFFSET_AT,
        bytes,
      }
      if (!oneSector(write)) throw noRoom(image)
      writes.push(write)
    }
    limit = to
  } else if (from !== 0) limit = from
  if (end > limit || at % 8 !== 0) throw noRoom(image)
  const bytes = new Uint8Array(EXTENSION_BYTES + 8)
  bytes.set(u32(extensionMagic.bitmaps))
  bytes.set(u32(24), 4)
  bytes.set(payload(directory), 8)
  // Behind END, which is still there, nobody looks; then END itself, 8 bytes of one sector, becomes the extension.
  return [
    ...writes,
    ...shown(
      { what: 'the bitmaps extension, behind the end of the others', offset: at + 8, bytes: bytes.slice(8) },
      { what: 'the bitmaps extension begins', offset: at, bytes: bytes.slice(0, 8) },
    ),
  ]
}

function noRoom(image: SwitchedImage): Qcow2Error {
  return new Qcow2Error(
    'no-space',
    `${image.storage.name} has no room for the bitmaps extension in its first cluster`,
    {
      image: image.storage.name,
    },
  )
}

function payload({ count, offset, bytes }: NewDirectory): Uint8Array {
  const data = new Uint8Array(24)
  data.set(u32(count))
  data.set(u64(bytes), 8)
  data.set(u64(offset), 16)
  return data
}

export function setAutoclear(what: string, flags: bigint): HeaderWrite {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, flags)
  return { what, offset: AUTOCLEAR_AT, bytes }
}

/** As one write, what lies between them with it, where all of it is in one sector; else one after the other. */
function atOnce(what: string, writes: readonly HeaderWrite[], start: Uint8Array): HeaderWrite[] {
  const offset = Math.min(...writes.map(write => write.offset))
  const end = Math.max(...writes.map(write => write.offset + write.bytes.byteLength))
  const bytes = start.slice(offset, end)
  for (const write of writes) bytes.set(write.bytes, write.offset - offset)
  const whole = { what, offset, bytes }
  return oneSector(whole) ? [whole] : [...writes]
}

function oneSector({ offset, bytes }: HeaderWrite): boolean {
  return Math.floor(offset / SECTOR) === Math.floor((offset + bytes.byteLength - 1) / SECTOR)
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value)
  return bytes
}

function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8)
  putU64(new DataView(bytes.buffer), 0, value)
  return bytes
}
