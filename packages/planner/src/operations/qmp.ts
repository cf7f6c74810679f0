import { ACTIVE_WRITE } from './merge.js'
import { requireDoable } from './require-doable.js'
import type { BitmapOperation, DataStep, OperationsPlan, Place } from './types.js'

/** One action of QMP's `transaction`. */
export interface BitmapQmpAction {
  readonly type: string
  readonly data: Readonly<Record<string, unknown>>
}

/** One command; `id` says when it is due, and QEMU gives it back with the answer. */
export interface OperationsQmpCommand {
  readonly id: string
  readonly execute: string
  readonly arguments: Readonly<Record<string, unknown>>
}

export interface OperationsQmpOptions {
  /**
   * The QEMU node of an image. Default: `vda-layer0`, `vda-layer1`, …, `vda-target`, `vda-overlay`; the file below each
   * is `…-file`. Name the nodes so, or replace them.
   */
  readonly nodeName?: ((place: Place) => string) | undefined
}

/**
 * The operations as actions of one QMP transaction, in order.
 *
 * @example operationActions(merge(request).operations, { nodeName: ({ layer }) => `libvirt-${Number(layer) + 1}-format` })
 */
export function operationActions(
  operations: readonly BitmapOperation[],
  { nodeName = defaultNode }: OperationsQmpOptions = {},
): readonly BitmapQmpAction[] {
  return operations.map(operation => {
    const node = nodeName(operation)
    const { bitmap, kind } = operation
    const type = `block-dirty-bitmap-${kind}`
    switch (kind) {
      case 'add': {
        const { persistent, disabled, granularity } = operation
        return { type, data: { node, name: bitmap, persistent, disabled, granularity } }
      }
      case 'merge': {
        const bitmaps = operation.sources.map(source => ({ node: nodeName(source), name: source.bitmap }))
        return { type, data: { node, target: bitmap, bitmaps } }
      }
      default:
        return { type, data: { node, name: bitmap } }
    }
  })
}

/**
 * What to tell a running QEMU, in order: one transaction with all operations of all disks, so that all of them happen or
 * none; around it the layers that must be reopened for writing; before it, where the guest writes on while a job ends, the
 * bitmap that catches those writes. Block jobs themselves are the caller's.
 *
 * @throws {PlanError} `plan-unknown`, `operation-blocked`
 */
export function operationsToQmp(
  plan: OperationsPlan,
  options: OperationsQmpOptions = {},
): readonly OperationsQmpCommand[] {
  requireDoable(plan)
  const { nodeName = defaultNode } = options
  const writeSources = plan.data.flatMap(activeWriteOf)
  const operations = [
    ...plan.operations.map(operation => {
      const active = writeSources.find(({ disk }) => disk === operation.disk)
      if (operation.kind !== 'merge' || active === undefined) return operation
      return { ...operation, sources: [...operation.sources, { ...active, bitmap: ACTIVE_WRITE }] }
    }),
    ...writeSources.map(place => ({ ...place, bitmap: ACTIVE_WRITE, kind: 'remove' as const })),
  ]
  const snapshots = plan.data.flatMap(step =>
    step.kind === 'snapshot'
      ? [
          {
            type: 'blockdev-snapshot',
            data: { node: nodeName(step.top), overlay: nodeName(step.overlay) },
          },
        ]
      : [],
  )
  const actions = [...snapshots, ...operationActions(operations, { nodeName })]
  const reopen = (readOnly: boolean) =>
    plan.reopen.map(place => reopenCommand(place, plan, readOnly, nodeName))
  const when = WHEN[plan.action]
  return [
    ...writeSources.map(place => ({
      id: 'when the job is ready, before it is completed',
      execute: 'block-dirty-bitmap-add',
      arguments: { node: nodeName(place), name: ACTIVE_WRITE, persistent: false, disabled: false },
    })),
    ...(actions.length === 0
      ? []
      : [...reopen(false), { id: when, execute: 'transaction', arguments: { actions } }, ...reopen(true)]),
  ]
}

const WHEN: Record<OperationsPlan['action'], string> = {
  delete: 'at any time',
  commit: 'when the job has completed, before its nodes are removed',
  pull: 'when the job has completed, before its nodes are removed',
  copy: 'when the job has completed, before its nodes are removed',
  snapshot: 'when the overlay is open',
}

/** Where the guest writes while the job completes: into the base of its own top, or into the mirror. */
function activeWriteOf(step: DataStep): Place[] {
  if (step.kind === 'copy') return [step.target]
  return step.kind === 'commit' && step.overlay === undefined ? [step.base] : []
}

/** blockdev-reopen resets what it is not told, so the children are named too. */
function reopenCommand(
  place: Place,
  plan: OperationsPlan,
  readOnly: boolean,
  nodeName: (place: Place) => string,
): OperationsQmpCommand {
  const node = nodeName(place)
  const below = plan.layers.find(
    ({ disk, layer }) => disk === place.disk && layer === Number(place.layer) + 1,
  )
  return {
    id: readOnly ? 'afterwards' : 'before the transaction',
    execute: 'blockdev-reopen',
    arguments: {
      options: [
        {
          ...{ driver: 'qcow2', 'node-name': node, 'read-only': readOnly, file: `${node}-file` },
          backing: below === undefined ? null : nodeName(below),
        },
      ],
    },
  }
}

function defaultNode({ disk, layer }: Place): string {
  return typeof layer === 'number' ? `${disk}-layer${layer}` : `${disk}-${layer}`
}
