import { resolve } from 'node:path'
import {
  type BackupFacts,
  type Json,
  type LayerOrder,
  orderQueries,
  orphanBitmaps,
  planEveryCheckpoint,
  printCheckpoint,
  type Rebuilt,
  type RebuiltCheckpoint,
  rebuildCheckpoints,
  toKebab,
  virshCommand,
} from '@tidemark/planner'
import { measureOrders } from '@tidemark/planner/node'
import { isoTime } from '../checkpoint/time.js'
import {
  type CheckpointOptions,
  type OpenDomain,
  warnOfProblems,
  withDomain,
} from '../checkpoint/with-domain.js'
import { writeFiles } from '../checkpoint/write-files.js'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'

export interface CheckpointRedefineOptions extends CheckpointOptions {
  readonly out?: string
  readonly checkpoint?: readonly string[]
  readonly bitmap?: readonly string[]
  readonly bitmaps: boolean
  readonly line?: boolean
  readonly asFound?: boolean
  readonly force?: boolean
}

/** `tidemark checkpoint redefine`. */
export async function checkpointRedefine(
  options: CheckpointRedefineOptions,
  output: Output,
): Promise<ExitStatus> {
  if (!options.bitmaps && options.bitmap !== undefined) {
    throw new UsageError('--bitmap takes bitmaps, --no-bitmaps none: give one of them')
  }
  if (options.out === '') throw new UsageError('-o needs the name of a folder')
  if (options.force && options.out === undefined) throw new UsageError('--force overwrites what -o writes')
  return withDomain(options, output, async open => {
    warnOfProblems(open.loaded, output)
    requireKnown(open.facts, options)
    if (options.asFound) refuseChained(open)
    const adopt = adopted(options)
    const orders = await compare(open, adopt, options)
    const rebuilt = rebuildCheckpoints(open.facts, {
      adopt,
      orders,
      line: options.line,
      asFound: options.asFound,
      dialect: open.dialect,
    })
    const chosen = choose(rebuilt.checkpoints, options)
    if (chosen.length === 0) {
      throw new CommandError(
        'nothing-to-redefine',
        `${open.facts.domain.name} has neither checkpoints' metadata nor bitmaps that checkpoints could be made of`,
        { domain: open.facts.domain.name },
      )
    }
    for (const { message } of rebuilt.notes) output.warn(message)
    const files = await write(chosen, options)
    await print(open, rebuilt, chosen, files, output)
    return chosen.some(({ place }) => place.sure === 'guess') ? exitStatus.cannotTell : exitStatus.ok
  })
}

/**
 * An older checkpoint needs the bitmaps of all later ones: where one says that it left a disk out, what its bitmap lacks
 * would pass for unchanged.
 *
 * @throws {CommandError} `bitmaps-chained`
 */
function refuseChained({ facts, dialect }: OpenDomain): void {
  const plan = planEveryCheckpoint(facts, { dialect }).next().value
  if (plan?.dialect !== 'chained') return
  const message = '--as-found is not for chained bitmaps: older checkpoints need to know that one is broken'
  throw new CommandError('bitmaps-chained', message)
}

/** Undefined: all that may have been checkpoints. What is asked for by name alone brings no others with it. */
function adopted({ bitmap, bitmaps, checkpoint }: CheckpointRedefineOptions): readonly string[] | undefined {
  if (bitmap !== undefined) return bitmap
  return bitmaps && checkpoint === undefined ? undefined : []
}

/** @throws {CommandError} `checkpoint-missing`, `bitmap-missing` */
function requireKnown(facts: BackupFacts, { checkpoint, bitmap }: CheckpointRedefineOptions): void {
  const known = new Set(facts.checkpoints.map(({ name }) => name))
  const missing = checkpoint?.find(name => !known.has(name))
  if (missing !== undefined) {
    const message = `${facts.domain.name} has no metadata of a checkpoint '${missing}'; --bitmap makes one of bitmaps alone`
    throw new CommandError('checkpoint-missing', message, { checkpoint: missing })
  }
  const orphans = new Map(orphanBitmaps(facts).map(orphan => [orphan.name, orphan]))
  for (const name of bitmap ?? []) {
    const orphan = orphans.get(name)
    if (orphan?.unfit === 'not-a-name') {
      throw new CommandError(
        'not-a-name',
        `no checkpoint can be named '${name}': tidemark bitmap --rename gives it another name`,
        { bitmap: name },
      )
    }
    if (orphan !== undefined) continue
    const why = known.has(name)
      ? 'it has metadata: --checkpoint takes it from there'
      : 'no disk has such a bitmap'
    throw new CommandError('bitmap-missing', `there is no bitmap '${name}' without metadata: ${why}`, {
      bitmap: name,
    })
  }
}

/** Bodies are read only where they decide something: the order of what has no metadata, or of a tree that is none. */
async function compare(
  { facts, images, engine }: OpenDomain,
  adopt: readonly string[] | undefined,
  options: CheckpointRedefineOptions,
): Promise<readonly LayerOrder[]> {
  const known = facts.checkpoints.map(({ name }) => name)
  const orphans =
    adopt ?? orphanBitmaps(facts).flatMap(({ name, unfit }) => (unfit === undefined ? [name] : []))
  if (orphans.length === 0 && !options.line) return []
  return measureOrders(images, orderQueries(facts, [...known, ...orphans]), engine)
}

/** Those asked for, and those whose parent changes with them. */
function choose(
  all: readonly RebuiltCheckpoint[],
  { checkpoint, bitmap }: CheckpointRedefineOptions,
): readonly RebuiltCheckpoint[] {
  if (checkpoint === undefined && bitmap === undefined) return all
  const named = new Set([...(checkpoint ?? []), ...(bitmap ?? [])])
  return all.filter(({ checkpoint: { name }, relinked }) => named.has(name) || relinked)
}

async function write(
  chosen: readonly RebuiltCheckpoint[],
  { out, force }: CheckpointRedefineOptions,
): Promise<readonly string[] | undefined> {
  if (out === undefined) return undefined
  const files = chosen.map(({ checkpoint }) => ({
    name: `${checkpoint.name}.xml`,
    text: printCheckpoint(checkpoint, { withDomain: true, comment: true }),
  }))
  return writeFiles(resolve(out), files, force === true)
}

async function print(
  { facts }: OpenDomain,
  rebuilt: Rebuilt,
  chosen: readonly RebuiltCheckpoint[],
  files: readonly string[] | undefined,
  output: Output,
): Promise<void> {
  const commands = files?.map(file => redefineCommand(facts.domain.name, file))
  if (output.format === 'json') {
    await output.json({
      domain: facts.domain.name,
      checkpoints: chosen.map((each, i) => checkpointToJson(each, files?.[i], commands?.[i])),
      'left-out': rebuilt.left.map(({ name, unfit }) => ({ bitmap: name, why: unfit ?? 'not-asked' })),
      notes: toKebab(rebuilt.notes),
    })
    return
  }
  const { rebuiltToText, doubts } = await import('../render/rebuilt-text.js')
  if (commands === undefined) {
    await output.write(rebuiltToText(facts.domain.name, chosen, rebuilt.left, output.colors, output.width))
    return
  }
  for (const doubt of doubts(chosen)) output.warn(doubt)
  await output.write(commands.map(command => `${command}\n`).join(''))
}

/** @throws {CommandError} `bad-name`: no command line can carry it */
function redefineCommand(domain: string, file: string): string {
  const command = virshCommand('checkpoint-create', [domain, file], ['--redefine'])
  if (command !== undefined) return command
  throw new CommandError('bad-name', `no command line can carry the name of the domain or of ${file}`, {
    domain,
    file,
  })
}

function checkpointToJson(
  { checkpoint, from, place, time, changed }: RebuiltCheckpoint,
  file: string | undefined,
  command: string | undefined,
): Json {
  const { name, parent, creationTime } = checkpoint
  return toKebab({
    name,
    parent: parent ?? null,
    creationTime,
    created: isoTime(creationTime!),
    from,
    changed,
    place,
    time,
    // Never with the domain, which may hold passwords: the file has it.
    xml: printCheckpoint(checkpoint),
    file,
    command,
  })
}
