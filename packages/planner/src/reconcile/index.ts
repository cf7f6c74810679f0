export { type EveryCheckpointOptions, planEveryCheckpoint } from './every-checkpoint.js'
export type { BitmapCost, Finding, FindingCode, FindingSeverity, Way, WayNeeds } from './findings.js'
export type { Counted, LayerOrder, OrderQuery } from './inclusion.js'
export { sortByInclusion } from './inclusion.js'
export type { UnreadableFile } from './metadata-findings.js'
export { type OrphanBitmap, orderQueries, orphanBitmaps } from './order-queries.js'
export {
  type CheckpointOverview,
  type CheckpointsOverview,
  checkpointsOverview,
  type DiskUse,
} from './overview.js'
export { type BitmapOwner, bitmapOwner, type Ownership } from './owners.js'
export { type BitmapPlaces, bitmapPlaces, type PlacedBitmap } from './places.js'
export type { Placing, Sureness } from './placing.js'
export {
  type RebuildNote,
  type RebuildOptions,
  type Rebuilt,
  type RebuiltCheckpoint,
  rebuildCheckpoints,
} from './rebuild.js'
export { type ReconcileOptions, type Reconciliation, reconcile } from './reconcile.js'
export {
  type LayerBitmap,
  type RecordedDisk,
  type ShownCheckpoint,
  type ShownDisk,
  showCheckpoint,
} from './show.js'
