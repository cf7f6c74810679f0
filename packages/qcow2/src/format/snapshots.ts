import { CorruptImageError } from '../errors.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'
import { fieldsOf, text } from './bytes.js'
import type { Qcow2Header } from './header.js'

/** Fixed part of an entry: what precedes the extra data. */
const FIXED_BYTES = 40
/** QEMU's limits (qcow2.h): QCOW_MAX_SNAPSHOTS_SIZE, QCOW_MAX_SNAPSHOT_EXTRA_DATA. */
const MAX_TABLE_BYTES = 64 * 1024 * 1024
const MAX_EXTRA_BYTES = 1024
const WINDOW_BYTES = 256 * 1024
/** No entry is longer: two names of 65,535 bytes and the extra data. */
const MAX_ENTRY_BYTES = FIXED_BYTES + MAX_EXTRA_BYTES + 2 * 65535 + 7

/** An internal snapshot (qcow2 specification, "Snapshots"). */
export interface Snapshot {
  /** A name for programs, unique within the image. */
  readonly id: string
  /** A name for people. */
  readonly name: string
  readonly l1TableOffset: number
  readonly l1Size: number
  /** Seconds and nanoseconds since 1970, when it was taken. */
  readonly dateSec: number
  readonly dateNsec: number
  /** Nanoseconds for which the guest had run. */
  readonly vmClockNsec: bigint
  /** Bytes of saved memory behind the disk's data; 0 if the guest did not run. */
  readonly vmStateSize: number
  /** The disk's size then, in bytes; undefined where it is not written (version 2). */
  readonly diskSize: number | undefined
  /** Instructions executed; undefined where they are not counted. */
  readonly icount: bigint | undefined
}

const NO_ICOUNT = 2n ** 64n - 1n

/**
 * Reads the snapshot table, through a window: memory depends on what is in it, not on what the header claims.
 *
 * @throws {CorruptImageError} for an entry that runs over the file's end or is larger than QEMU takes
 */
export async function readSnapshots(
  storage: ImageStorage,
  header: Qcow2Header,
  options?: ReadOptions,
): Promise<Snapshot[]> {
  return (await readSnapshotTable(storage, header, options)).snapshots
}

/** The same, and how many bytes the table takes from `snapshots_offset` on. */
export async function readSnapshotTable(
  storage: ImageStorage,
  header: Qcow2Header,
  options?: ReadOptions,
): Promise<{ snapshots: Snapshot[]; bytes: number }> {
  const snapshots: Snapshot[] = []
  let window: Uint8Array = new Uint8Array()
  let windowStart: number = header.snapshotsOffset
  let at: number = header.snapshotsOffset
  const end = Math.min(storage.size, header.snapshotsOffset + MAX_TABLE_BYTES)
  const corrupt = (field: string, offset: number, expected: string, found: string) =>
    new CorruptImageError(storage.name, {
      structure: `snapshot table entry ${snapshots.length}`,
      field,
      offset,
      expected,
      found,
    })
  /** Bytes from `at` on, as many as the file has, at least `length`. */
  const need = async (length: number): Promise<Uint8Array> => {
    if (at + length > end) {
      throw corrupt(
        'length',
        at,
        `${length} bytes before 0x${end.toString(16)}`,
        `${Math.max(0, end - at)} bytes`,
      )
    }
    if (at + length > windowStart + window.byteLength) {
      windowStart = at
      window = await readBytes(storage, at, Math.min(end - at, Math.max(WINDOW_BYTES, length)), options)
    }
    return window.subarray(at - windowStart)
  }
  for (let i = 0; i < header.nbSnapshots; i++) {
    const fixed = fieldsOf(await need(FIXED_BYTES))
    const idBytes = fixed.u16(12)
    const nameBytes = fixed.u16(14)
    const extraBytes = fixed.u32(36)
    if (extraBytes > MAX_EXTRA_BYTES) {
      throw corrupt('extra_data_size', at + 36, `at most ${MAX_EXTRA_BYTES}`, String(extraBytes))
    }
    const length = FIXED_BYTES + extraBytes + idBytes + nameBytes
    const bytes = await need(Math.min(length, MAX_ENTRY_BYTES))
    const f = fieldsOf(bytes)
    const names = FIXED_BYTES + extraBytes
    const icount = extraBytes >= 24 ? f.bits64(FIXED_BYTES + 16) : NO_ICOUNT
    snapshots.push({
      id: text(bytes.subarray(names, names + idBytes)),
      name: text(bytes.subarray(names + idBytes, names + idBytes + nameBytes)),
      l1TableOffset: f.u64(0),
      l1Size: f.u32(8),
      dateSec: f.u32(16),
      dateNsec: f.u32(20),
      vmClockNsec: f.bits64(24),
      vmStateSize: extraBytes >= 8 ? f.u64(FIXED_BYTES) : f.u32(32),
      diskSize: extraBytes >= 16 ? f.u64(FIXED_BYTES + 8) : undefined,
      icount: icount === NO_ICOUNT ? undefined : icount,
    })
    at += Math.ceil(length / 8) * 8
  }
  return { snapshots, bytes: at - header.snapshotsOffset }
}
