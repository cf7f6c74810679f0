import { UsageError } from '../errors.js'
import { repeatedKey } from './repeated-key.js'

/** What PLAN.json asks for; an action as BitmapAction, but for the image that it merges from. */
export interface PlanFile {
  readonly images: readonly PlanImage[]
}

export interface PlanImage {
  readonly filename: string
  readonly actions: readonly PlanAction[]
}

export type PlanAction =
  | {
      readonly action: 'add'
      readonly name: string
      readonly granularity?: number
      readonly disabled?: boolean
    }
  | { readonly action: 'remove' | 'clear' | 'enable' | 'disable'; readonly name: string }
  | { readonly action: 'rename'; readonly name: string; readonly to: string }
  | { readonly action: 'merge'; readonly name: string; readonly source: string; readonly from?: string }

/** Far more than any domain has disks. */
const MOST_IMAGES = 1024
/** In all: an image has at most 65,535 bitmaps. */
const MOST_ACTIONS = 1_000_000

/** Keys of each action beside `action` and `name`; those with a `?` may be left out. */
const ACTION_KEYS: Readonly<Record<string, readonly string[]>> = {
  add: ['granularity?', 'disabled?'],
  remove: [],
  clear: [],
  enable: [],
  disable: [],
  rename: ['to'],
  merge: ['source', 'source-filename?', 'source-format?'],
}

/**
 * Reads a plan of edits. It may be of anybody's making: what is not known is refused, not passed over.
 *
 * @throws {UsageError} with the place: `images[1].actions[0].name: …`
 */
export function parsePlanFile(bytes: Uint8Array, what: string): PlanFile {
  const wrong = (at: string, why: string) => new UsageError(`${what}: ${at === '' ? '' : `${at}: `}${why}`)
  let json: string
  let value: unknown
  try {
    json = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    value = JSON.parse(json)
  } catch (error) {
    throw wrong('', `it is not JSON: ${(error as Error).message.replace(/\s+/g, ' ')}`)
  }
  let count = 0
  const object = objectOf(value, '', ['images'])
  const plan = {
    images: arrayOf(object.images, 'images', MOST_IMAGES).map((image, i) => {
      const at = `images[${i}]`
      const { filename, actions } = objectOf(image, at, ['filename', 'actions'])
      const list = arrayOf(actions, `${at}.actions`, MOST_ACTIONS)
      count += list.length
      if (count > MOST_ACTIONS) throw wrong(at, `there are more than ${MOST_ACTIONS} actions`)
      return {
        filename: nameOf(filename, `${at}.filename`),
        actions: list.map((action, k) => actionOf(action, `${at}.actions[${k}]`)),
      }
    }),
  }
  const twice = repeatedKey(json)
  if (twice !== undefined) throw wrong(`line ${twice.line}`, `'${twice.key}' is there twice in one object`)
  return plan

  function actionOf(value: unknown, at: string): PlanAction {
    const { action } = recordOf(value, at)
    const keys =
      typeof action === 'string' && Object.hasOwn(ACTION_KEYS, action) ? ACTION_KEYS[action] : undefined
    if (keys === undefined) {
      throw wrong(`${at}.action`, `${shown(action)} is not one of ${Object.keys(ACTION_KEYS).join(', ')}`)
    }
    const object = objectOf(value, at, ['action', 'name', ...keys])
    const name = nameOf(object.name, `${at}.name`)
    switch (action) {
      case 'add':
        return { action, name, ...granularityOf(object.granularity, at), ...disabledOf(object.disabled, at) }
      case 'rename':
        return { action, name, to: nameOf(object.to, `${at}.to`) }
      case 'merge':
        return { action, name, source: nameOf(object.source, `${at}.source`), ...fromOf(object, at) }
      default:
        return { action: action as 'remove', name }
    }
  }

  function granularityOf(value: unknown, at: string): { granularity?: number } {
    if (value === undefined) return {}
    const power = typeof value === 'number' ? Math.log2(value) : Number.NaN
    if (!(Number.isInteger(power) && power >= 9 && power <= 31)) {
      throw wrong(`${at}.granularity`, `${shown(value)} is not a power of two from 512 to 2147483648`)
    }
    return { granularity: value as number }
  }

  function disabledOf(value: unknown, at: string): { disabled?: boolean } {
    if (value === undefined) return {}
    if (typeof value !== 'boolean') throw wrong(`${at}.disabled`, `${shown(value)} is not true or false`)
    return { disabled: value }
  }

  function fromOf(object: Record<string, unknown>, at: string): { from?: string } {
    const { 'source-filename': from, 'source-format': format } = object
    if (format !== undefined && from === undefined) {
      throw wrong(`${at}.source-format`, 'it is the format of source-filename: give both')
    }
    if (format !== undefined && format !== 'qcow2') {
      throw wrong(`${at}.source-format`, `${shown(format)}: only qcow2 images have bitmaps`)
    }
    return from === undefined ? {} : { from: nameOf(from, `${at}.source-filename`) }
  }

  function nameOf(value: unknown, at: string): string {
    if (value === undefined) throw wrong(at, 'it is missing')
    if (typeof value !== 'string') throw wrong(at, `${shown(value)} is not a name`)
    if (value === '') throw wrong(at, 'the name is empty')
    if (value.includes('\0')) throw wrong(at, 'a name has no NUL')
    return value
  }

  function arrayOf(value: unknown, at: string, most: number): unknown[] {
    if (value === undefined) throw wrong(at, 'it is missing')
    if (!Array.isArray(value)) throw wrong(at, `${shown(value)} is not a list`)
    if (value.length === 0) throw wrong(at, 'it is empty')
    if (value.length > most) throw wrong(at, `${value.length} are more than ${most}`)
    return value
  }

  function objectOf(value: unknown, at: string, keys: readonly string[]): Record<string, unknown> {
    const object = recordOf(value, at)
    const known = keys.map(key => key.replace('?', ''))
    for (const key of Object.keys(object)) {
      if (!known.includes(key)) {
        throw wrong(at, `'${key.slice(0, 40)}' is not known here; there are ${known.join(', ')}`)
      }
    }
    return object
  }

  function recordOf(value: unknown, at: string): Record<string, unknown> {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>
    }
    throw wrong(at, `${shown(value)} is not an object`)
  }
}

/** A value in a message, not longer than a word or two. */
function shown(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value)
  return text.length > 40 ? `${text.slice(0, 40)}…` : text
}
