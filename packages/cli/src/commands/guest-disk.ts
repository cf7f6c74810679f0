import { type GuestDisk, openDisk, Qcow2Error } from '@tidemark/qcow2'
import { nodeCodecs } from '@tidemark/qcow2/node'
import type { ByteRange } from '../dump/copy.js'
import { candidates, readPassphrase } from '../passphrase.js'
import { type GateOptions, gate, type Layers } from './open.js'

export interface GuestDataOptions extends GateOptions {
  readonly snapshot?: string
  readonly passphraseFile?: string
}

/** For all images of a chain together: reading in order needs no more of it. */
const TABLE_CACHE_BYTES = 8 * 1024 * 1024

/** A disk whose data are read: with codecs, and unlocked if need be. */
export async function openData(
  layers: Layers,
  options: GuestDataOptions,
  range: (disk: GuestDisk) => ByteRange,
): Promise<GuestDisk> {
  let bytes: Promise<Buffer> | undefined
  const { passphraseFile: file, snapshot } = options
  for (let attempt = 0; ; attempt++) {
    const passphrase = async () => {
      // A pipe gives it once.
      bytes ??= readPassphrase(file!)
      return candidates(await bytes)[attempt]!
    }
    const disk = await openDisk(layers, {
      open: gate(options),
      codecs: nodeCodecs,
      tableCacheBytes: Math.max(256 * 1024, Math.floor(TABLE_CACHE_BYTES / layers.length)),
      snapshot,
      ...(file === undefined ? {} : { passphrase }),
    })
    try {
      await tryKey(disk, layers, range(disk))
      return disk
    } catch (error) {
      await disk.close()
      const wrong = error instanceof Qcow2Error && error.code === 'passphrase-wrong'
      if (!wrong || bytes === undefined || attempt + 1 === candidates(await bytes).length) throw error
    }
  }
}

/** Reads a sector of what is encrypted, if there is some: before anything is written, and for one of its readers. */
async function tryKey(disk: GuestDisk, layers: Layers, { start, end }: ByteRange): Promise<void> {
  if (!layers.some(({ inspection }) => inspection?.encrypted)) return
  for await (const extents of disk.extents(start, end - start)) {
    const found = extents.find(
      ({ data, zero, depth }) => data && !zero && layers[depth]?.inspection?.encrypted,
    )
    if (found === undefined) continue
    await disk.readInto(new Uint8Array(Math.min(512, found.length)), found.start)
    return
  }
}
