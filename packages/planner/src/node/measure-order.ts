import {
  type BitmapEngine,
  countDirty,
  dirtyExtents,
  findBitmap,
  openBitmap,
  Qcow2Error,
} from '@tidemark/qcow2'
import { type Counted, type LayerOrder, type OrderQuery, sortByInclusion } from '../reconcile/inclusion.js'
import type { DomainImages } from './images.js'

/**
 * Sorts the bitmaps of each query by what holds what, from the open images. A body that cannot be read is an answer
 * too, never a throw.
 *
 * @param engine with an arena of at least COMBINE_ARENA_BYTES
 */
export async function measureOrders(
  images: DomainImages,
  queries: readonly OrderQuery[],
  engine: BitmapEngine,
): Promise<readonly LayerOrder[]> {
  const orders: LayerOrder[] = []
  for (const query of queries) orders.push(await measureOrder(images, query, engine))
  return orders
}

async function measureOrder(
  images: DomainImages,
  { target, layer, filename, bitmaps, granularity }: OrderQuery,
  engine: BitmapEngine,
): Promise<LayerOrder> {
  const inspection = images.layers.get(target)![layer]!.inspection!
  const open = (name: string) => openBitmap(inspection, findBitmap(inspection, name), engine)
  const counted: Counted[] = []
  const unread: { bitmap: string; message: string }[] = []
  for (const name of bitmaps) {
    try {
      const { granules } = await countDirty(engine, [open(name)], { granularity })
      counted.push({ name, granules })
    } catch (error) {
      if (!(error instanceof Qcow2Error)) throw error
      unread.push({ bitmap: name, message: error.message })
    }
  }
  const holds = async (older: string, newer: string): Promise<boolean> => {
    const options = { operation: 'difference', granularity, widenFirst: true } as const
    for await (const chunk of dirtyExtents(engine, [open(newer), open(older)], options)) {
      if (chunk.length > 0) return false
    }
    return true
  }
  return { target, layer, filename, unread, ...(await sortByInclusion(counted, holds)) }
}
