import type { PersistentBitmap } from '../bitmaps/directory.js'
import { entryOffset } from '../format/bytes.js'
import { type ImageStorage, type ReadOptions, readBytes } from '../storage/storage.js'

const WINDOW_ENTRIES = 8192

/** The clusters that a bitmap's table refers to, as host offsets, with the number of the entry. */
export async function* dataClusters(
  storage: ImageStorage,
  { tableOffset, tableSize }: PersistentBitmap,
  options: ReadOptions = {},
): AsyncGenerator<{ readonly entry: number; readonly offset: number }, void, undefined> {
  for (let first = 0; first < tableSize; first += WINDOW_ENTRIES) {
    const count = Math.min(WINDOW_ENTRIES, tableSize - first)
    const view = new DataView((await readBytes(storage, tableOffset + first * 8, count * 8, options)).buffer)
    for (let i = 0; i < count; i++) {
      const offset = entryOffset(view, i * 8)
      if (offset !== 0) yield { entry: first + i, offset }
    }
  }
}
