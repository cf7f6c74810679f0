/** A running QEMU's own account of its bitmaps: the answer to QMP's query-named-block-nodes. */
import type { LayerFacts } from '../facts.js'

export interface NodeBitmap {
  readonly name: string
  readonly recording: boolean
  /** An operation of QEMU's holds it. */
  readonly busy: boolean
  readonly persistent: boolean
  readonly inconsistent: boolean
  /** Bytes. */
  readonly granularity: number
  /** Dirty bytes. */
  readonly count: number
}

export interface NamedNode {
  readonly nodeName: string
  readonly filename: string
  readonly format: string
  readonly virtualSize: number | undefined
  readonly compat: string | undefined
  /** In QEMU's order. */
  readonly bitmaps: readonly NodeBitmap[]
  readonly snapshots: readonly { readonly name: string; readonly vmState: boolean }[]
}

/**
 * Reads the answer: the array itself, parsed. Nodes without a name are passed over; what is missing or of another type
 * counts as absent, and a bitmap that does not say that it is sound counts as inconsistent.
 *
 * @throws {TypeError} it is no array
 * @example
 * ```ts
 * const nodes = parseNamedNodes(await qmp('query-named-block-nodes'))
 * const chain = ['libvirt-2-format', 'libvirt-1-format'].map(name => layerOfNode(nodes.get(name)!))
 * ```
 */
export function parseNamedNodes(answer: unknown): ReadonlyMap<string, NamedNode> {
  if (!Array.isArray(answer)) throw new TypeError('query-named-block-nodes answers with an array')
  const nodes = new Map<string, NamedNode>()
  for (const each of answer) {
    const nodeName = text(field(each, 'node-name'))
    if (nodeName === undefined) continue
    const image = field(each, 'image')
    const data = field(field(image, 'format-specific'), 'data')
    nodes.set(nodeName, {
      nodeName,
      filename: text(field(image, 'filename')) ?? '',
      format: text(field(each, 'drv')) ?? '',
      virtualSize: number(field(image, 'virtual-size')),
      compat: text(field(data, 'compat')),
      bitmaps: list(field(each, 'dirty-bitmaps')).map(readBitmap),
      snapshots: list(field(image, 'snapshots')).map(snapshot => ({
        name: text(field(snapshot, 'name')) ?? '',
        vmState: (number(field(snapshot, 'vm-state-size')) ?? 0) > 0,
      })),
    })
  }
  return nodes
}

/** A node as a layer. Bitmaps that are not persistent are in no image, and left out. */
export function layerOfNode(node: NamedNode): LayerFacts {
  const { filename, format, virtualSize, compat } = node
  return {
    ...{ filename, namedAs: filename, format, problem: undefined, virtualSize, compat },
    ...{ locked: false, bitmapsStale: false },
    bitmaps: node.bitmaps
      .filter(({ persistent }) => persistent)
      .map(({ name, granularity, recording, inconsistent }) => {
        return { name, granularity, recording, inconsistent, corrupt: undefined }
      }),
  }
}

function readBitmap(value: unknown): NodeBitmap {
  const recording = field(value, 'recording')
  return {
    name: text(field(value, 'name')) ?? '',
    recording: recording === true,
    busy: field(value, 'busy') === true,
    persistent: field(value, 'persistent') === true,
    inconsistent: field(value, 'inconsistent') === true || typeof recording !== 'boolean',
    granularity: number(field(value, 'granularity')) ?? 0,
    count: number(field(value, 'count')) ?? 0,
  }
}

function field(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function number(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined
}
