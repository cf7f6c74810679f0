// What must happen to bitmaps when checkpoints are deleted and layers united, copied or laid over.
export {
  type CommitRequest,
  type CopyRequest,
  type PullRequest,
  planCommit,
  planCopy,
  planPull,
} from './block-jobs.js'
export { type CombineRequest, type CombineResult, combineChained } from './chained.js'
export { type DeleteRequest, planDelete } from './delete.js'
export { type DiscardResult, discard } from './discard.js'
export type { LayerRef } from './disks.js'
export { type EditAction, type ImageEdits, operationsToEdits } from './edits.js'
export { operationsToJson } from './json.js'
export { type MergeRequest, type MergeResult, merge, type SkippedBitmap } from './merge.js'
export { layerOfNode, type NamedNode, type NodeBitmap, parseNamedNodes } from './named-nodes.js'
export {
  type BitmapQmpAction,
  type OperationsQmpCommand,
  type OperationsQmpOptions,
  operationActions,
  operationsToQmp,
} from './qmp.js'
export { dataCommands, type OperationsShOptions, operationsToSh, remaining } from './sh.js'
export { type Change, parseChange, simulate } from './simulate.js'
export { planSnapshot, type SnapshotRequest, snapshotDisks } from './snapshot.js'
export type { CheckpointMeasurements } from './traps.js'
export type * from './types.js'
export { operationsExitStatus } from './types.js'
export { type WhatIf, whatIf } from './what-if.js'
