export type { TreeProblem } from './checkpoints/problems.js'
export { buildCheckpointTree, type CheckpointTree } from './checkpoints/tree.js'
export * from './errors.js'
export * from './facts.js'
export { type BackupRequest, planBackup } from './plan/backup.js'
export { planExitStatus } from './plan/exit-status.js'
export { type Json, planToJson, toKebab } from './plan/json.js'
export {
  type BodyError,
  type BodyQuery,
  bodyQueries,
  type DiskMeasurement,
  type Measurements,
  type SubsetQuery,
  type SubsetViolation,
} from './plan/measure.js'
export type {
  BitmapEvidence,
  LayerEvidence,
  Reason,
  ReasonCode,
  ReasonEvidence,
  ReasonOf,
  Severity,
} from './plan/reasons.js'
export type * from './plan/types.js'
export { type BitmapVerdict, judgeBitmap, type LayerBitmaps, type Violation } from './validity.js'
