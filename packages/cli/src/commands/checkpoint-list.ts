import {
  buildCheckpointTree,
  type CheckpointOverview,
  type CheckpointsOverview,
  checkpointsOverview,
  type Json,
  toKebab,
} from '@tidemark/planner'
import { measureAll } from '../checkpoint/measure-all.js'
import { isoTime } from '../checkpoint/time.js'
import { type CheckpointOptions, warnOfProblems, withDomain } from '../checkpoint/with-domain.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'

export interface CheckpointListOptions extends CheckpointOptions {
  readonly tree?: boolean
  readonly bodies?: boolean
}

/** `tidemark checkpoint list`. */
export async function checkpointList(options: CheckpointListOptions, output: Output): Promise<ExitStatus> {
  return withDomain(options, output, async open => {
    const { loaded, facts, dialect } = open
    warnOfProblems(loaded, output)
    const measurements = options.bodies ? await measureAll(open) : undefined
    const overview = checkpointsOverview(facts, { dialect, measurements })
    if (output.format === 'json') await output.json(overviewToJson(overview))
    else {
      const { checkpointsToText } = await import('../render/checkpoints-text.js')
      const tree = options.tree ? buildCheckpointTree(facts.checkpoints) : undefined
      await output.write(checkpointsToText(overview, tree, output.colors, output.width))
    }
    return exitStatus.ok
  })
}

function overviewToJson({ checkpoints, current, ...rest }: CheckpointsOverview): Json {
  return {
    ...(toKebab(rest) as { readonly [key: string]: Json }),
    current: current ?? null,
    checkpoints: checkpoints.map(checkpointToJson),
  }
}

function checkpointToJson(checkpoint: CheckpointOverview): Json {
  const { name, parent, creationTime, ...rest } = checkpoint
  return toKebab({
    name,
    parent: parent ?? null,
    creationTime: creationTime ?? null,
    created: creationTime === undefined ? null : isoTime(creationTime),
    ...rest,
  })
}
