import { resolve } from 'node:path'
import type { BackupFacts, BitmapFacts } from '@tidemark/planner'
import { type ImageEdit, type ImageInspection, inspectImage } from '@tidemark/qcow2'
import { CommandError } from '../errors.js'

/**
 * A plan is made of images that nobody holds, so somebody may have changed their bitmaps before they are held: by
 * another plan, say, of which this one knows nothing. What they hold may have changed, what there is may not.
 *
 * @param edits of the plan: images that are held
 * @throws {CommandError} `changed-meanwhile`
 */
export async function mustBeAsPlanned(
  edits: readonly ImageEdit[],
  { chains }: Pick<BackupFacts, 'chains'>,
): Promise<void> {
  const planned = new Map<string, string>()
  for (const { filename, bitmaps } of [...chains.values()].flat()) {
    planned.set(resolve(filename), JSON.stringify(bitmaps.map(described)))
  }
  for (const { storage, actions } of edits) {
    const sources = actions.flatMap(action => (action.action === 'merge' && action.image) || [])
    for (const image of [await inspectImage(storage), ...new Set(sources)]) {
      const file = resolve(image.storage.name)
      if (bitmapsOf(image) === planned.get(file)) continue
      throw new CommandError(
        'changed-meanwhile',
        `${file}: its bitmaps were changed after this was planned: plan it again`,
        { image: file },
      )
    }
  }
}

function described({ name, granularity, recording, inconsistent }: BitmapFacts) {
  return [name, granularity, recording, inconsistent]
}

function bitmapsOf({ bitmapDirectory }: ImageInspection): string {
  const { bitmaps = [] } = bitmapDirectory ?? {}
  return JSON.stringify(bitmaps.map(({ name, granularity, auto, inUse }) => [name, granularity, auto, inUse]))
}
