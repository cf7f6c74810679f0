import { Qcow2Error } from '../errors.js'
import type { Direction } from '../journal/content.js'
import type { JournalContent } from '../journal/journal.js'
import { type Found, type FoundState, foundState } from './found.js'

/** Why an image cannot go a way; undefined: it can. */
export interface Obstacles {
  readonly forward?: string
  readonly back?: string
}

/**
 * Which way all images go. Forward where that was decided and each of them can; else back, where each of them can.
 *
 * @throws {Qcow2Error} `recovery-impossible` where they can go neither way together
 */
export async function decide(
  found: readonly Found[],
  { digests, done, torn }: JournalContent,
  journal: string,
  obstaclesOf: (each: Found) => Promise<Obstacles>,
): Promise<Direction> {
  // All of them were there once: who is not, has gone on since.
  const concerned = done === undefined ? found : found.filter(({ state }) => state.kind === 'marked')
  // Nothing was switched, so an image that has changed, or has gone, did so with its old bitmaps.
  if (digests === undefined && done === undefined && !torn && found.every(isUnswitched)) return 'back'
  const obstacles: Obstacles[] = []
  for (const each of concerned) obstacles.push(await obstaclesOf(each))
  const canGo = (direction: Direction) => obstacles.every(each => each[direction] === undefined)
  if (done !== undefined && canGo(done)) return done
  if (done === undefined) {
    if (canGo('forward')) return 'forward'
    if (canGo('back')) return 'back'
  }
  throw impossible(concerned, obstacles, journal)
}

function isUnswitched({ state }: Found): boolean {
  if (state.kind === 'marked') return state.step === 0 && !state.torn
  return state.kind !== 'new'
}

function impossible(found: readonly Found[], obstacles: readonly Obstacles[], journal: string): Qcow2Error {
  const images = found.map((each, i) => ({
    filename: each.entry.filename,
    state: foundState(each),
    ...(obstacles[i]!.forward === undefined ? {} : { 'not-forward': obstacles[i]!.forward }),
    ...(obstacles[i]!.back === undefined ? {} : { 'not-back': obstacles[i]!.back }),
  }))
  const lines = images.map(
    image => `${image.filename}: ${STATES[image.state]}${reason(image['not-forward'], image['not-back'])}`,
  )
  return new Qcow2Error(
    'recovery-impossible',
    [
      'the images can neither all get their new bitmaps nor all keep the old ones; nothing was touched:',
      ...lines,
      'Put an image that is missing or was replaced back where it was, and try again. Or let each stay as it is: ' +
        `qemu-img check -r leaks FILE for each, then rm ${journal}`,
    ].join('\n'),
    { journal, images },
  )
}

const STATES: Readonly<Record<FoundState, string>> = {
  old: 'has its old bitmaps',
  prepared: 'has its old bitmaps, the new ones are prepared',
  switching: 'is between the old bitmaps and the new ones',
  switched: 'has its new bitmaps',
  new: 'has its new bitmaps',
  changed: 'has changed',
  missing: 'is missing',
}

function reason(forward: string | undefined, back: string | undefined): string {
  if (forward === undefined && back === undefined) return ''
  if (forward === back) return ` (${forward})`
  const parts = [
    ...(forward === undefined ? [] : [`not forward: ${forward}`]),
    ...(back === undefined ? [] : [`not back: ${back}`]),
  ]
  return ` (${parts.join('; ')})`
}
