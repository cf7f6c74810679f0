import type { BackupPlan, DiskPlan } from '../plan/types.js'
import { requireKnown } from './require-known.js'

export interface QmpOptions {
  /**
   * The QEMU node of a disk's layer (0 = top). Node names exist only in a running QEMU (`query-named-block-nodes`),
   * so offline none is known. Default: `vda-layer0`, `vda-layer1`, …: name the nodes so when you open the images
   * (`--blockdev node-name=…`), or replace them.
   */
  readonly nodeName?: ((disk: DiskPlan, layer: number) => string) | undefined
  /** The new bitmap on each top node. Default: `backup-<target>`, libvirt's own name for it. */
  readonly bitmapName?: ((disk: DiskPlan) => string) | undefined
}

export interface QmpTransaction {
  readonly execute: 'transaction'
  readonly arguments: { readonly actions: readonly QmpAction[] }
}

export type QmpAction =
  | {
      readonly type: 'block-dirty-bitmap-add'
      readonly data: {
        readonly node: string
        readonly name: string
        readonly persistent: false
        readonly disabled: true
        readonly granularity: number
      }
    }
  | {
      readonly type: 'block-dirty-bitmap-merge'
      readonly data: {
        readonly node: string
        readonly target: string
        readonly bitmaps: readonly { readonly node: string; readonly name: string }[]
      }
    }

/**
 * The QMP transaction that libvirt runs to prepare an incremental backup: for each incremental disk one new bitmap
 * on the top node, not persistent and disabled, into which the merge list's bitmaps are merged. Its granularity is
 * the top layer's. Without an incremental disk there are no actions.
 *
 * @throws {PlanError} `plan-unknown`
 * @example JSON.stringify(planToQmp(plan, { nodeName: (disk, layer) => nodes[disk.target][layer] }))
 */
export function planToQmp(plan: BackupPlan, options: QmpOptions = {}): QmpTransaction {
  requireKnown(plan)
  const { nodeName = defaultNode, bitmapName = ({ target }: DiskPlan) => `backup-${target}` } = options
  const actions = plan.disks
    .filter(({ mode }) => mode === 'incremental')
    .flatMap((disk): QmpAction[] => {
      const node = nodeName(disk, 0)
      const name = bitmapName(disk)
      const bitmaps = disk.merge.map(source => ({ node: nodeName(disk, source.layer), name: source.bitmap }))
      const granularity = disk.merge[0]!.granularity
      return [
        {
          type: 'block-dirty-bitmap-add',
          data: { node, name, persistent: false, disabled: true, granularity },
        },
        { type: 'block-dirty-bitmap-merge', data: { node, target: name, bitmaps } },
      ]
    })
  return { execute: 'transaction', arguments: { actions } }
}

function defaultNode(disk: DiskPlan, layer: number): string {
  return `${disk.target}-layer${layer}`
}
