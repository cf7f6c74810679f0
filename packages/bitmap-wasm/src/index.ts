export { type DirectoryEntry, type DirectoryGeometry, parseBitmapDirectory } from './directory.js'
export {
  type BitmapEngine,
  createEngine,
  type EngineOptions,
  type Lane,
  type MergeOperation,
} from './engine.js'
export { type BitmapsExtension, bitmapLimits, parseBitmapsExtension } from './extension.js'
export { ExtentExtractor } from './extents.js'
export { createTableDecoder, type TableDecoder, type TableGeometry, type TableRun } from './table.js'
export {
  type EntryViolation,
  type ExtensionViolation,
  entryViolations,
  extensionViolations,
  type TableViolation,
  tableViolations,
} from './violations.js'
