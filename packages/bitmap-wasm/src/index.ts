export { type DirectoryEntry, type DirectoryGeometry, parseBitmapDirectory } from './directory.js'
export { DirectoryReader, type DirectoryReaderOptions, type DirectoryRecords } from './directory-reader.js'
export {
  type BitmapEngine,
  createEngine,
  type EngineOptions,
  type Lane,
  type MergeOperation,
} from './engine.js'
export { type BitmapFormatCode, BitmapFormatError } from './errors.js'
export { type BitmapsExtension, bitmapLimits, parseBitmapsExtension } from './extension.js'
export { type Extent, ExtentExtractor, type ExtentOptions, extentsOf } from './extents.js'
export { ExtentPainter, type PaintedWindow, type PaintWindow, paintExtents } from './paint.js'
export {
  createTableDecoder,
  type TableDecoder,
  type TableGeometry,
  type TableRun,
  type TableRuns,
  tableRunKinds,
} from './table.js'
export {
  type EntryViolation,
  type ExtensionViolation,
  entryViolations,
  extensionViolations,
  type TableViolation,
  tableViolations,
} from './violations.js'
