export {
  type CompleteCheckpointOptions,
  completeCheckpoint,
  redefineCheckpoint,
} from './checkpoints/complete.js'
export type { TreeProblem } from './checkpoints/problems.js'
export { buildCheckpointTree, type CheckpointTree } from './checkpoints/tree.js'
export * from './errors.js'
export * from './facts.js'
export type * from './formats/backup-definition.js'
export { type BackupXmlOptions, planToBackupXml } from './formats/backup-xml.js'
export { type CompleteBackupOptions, completeBackup } from './formats/complete-backup.js'
export { beyondText } from './formats/for-libvirt.js'
export { printBackup } from './formats/print-backup.js'
export { planToQmp, type QmpAction, type QmpOptions, type QmpTransaction } from './formats/qmp.js'
export { planToSh, type ShOptions } from './formats/sh.js'
export * from './operations/index.js'
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
export * from './reconcile/index.js'
export { shellWord, virshCommand } from './shell-word.js'
export { type BitmapVerdict, judgeBitmap, type LayerBitmaps, type Violation } from './validity.js'
export { parseBackup } from './xml/backup.js'
export { type ParseCheckpointOptions, parseCheckpoint, parseCheckpointDraft } from './xml/checkpoint.js'
export { type PrintCheckpointOptions, printCheckpoint } from './xml/checkpoint-print.js'
export { embedDomain, parseDomain } from './xml/domain.js'
export type { EmbeddedXml } from './xml/embedded.js'
export { MAX_XML_DEPTH, MAX_XML_LENGTH } from './xml/guard.js'
