// What this package's own interfaces are made of, so that a caller needs no second import.
export { type BitmapEngine, createEngine, type MergeOperation } from '@tidemark/bitmap-wasm'
export {
  type BitmapOperand,
  COMBINE_ARENA_BYTES,
  type CombineOptions,
  countDirty,
  dirtyExtents,
} from './bitmaps/combine.js'
export { type BitmapDirectory, diskBytes, type PersistentBitmap } from './bitmaps/directory.js'
export { scanBitmapTables } from './bitmaps/scan.js'
export {
  type BitmapSource,
  type BitmapSourceOptions,
  findBitmap,
  openBitmap,
  type StretchState,
} from './bitmaps/source.js'
export { type BackingReference, fullBackingName, parseBackingName } from './chain/backing-name.js'
export {
  type ChainLayer,
  closeChain,
  type ImageOpener,
  type ImageReference,
  type OpenChainOptions,
  type OpenedImage,
  openChain,
} from './chain/open-chain.js'
export { probeFormat } from './chain/probe.js'
export { ClusterBits } from './check/cluster-bits.js'
export { mapReferences, type ReferenceMap } from './check/references.js'
export type { BlockCipher, Codecs, HashName, SectorCipher } from './data/codecs.js'
export { type DiskExtent, type GuestDisk, type OpenDiskOptions, openDisk } from './data/disk.js'
export { libraryCodecs } from './data/library-codecs.js'
export { readLuksHeader } from './data/luks.js'
export {
  describeLuks,
  type LuksDescription,
  type LuksHeader,
  type LuksKeySlot,
  type LuksSlotDescription,
} from './data/luks-header.js'
export type { BitmapAction, FutureBitmap } from './edit/actions.js'
export { type EditOptions, editBitmaps } from './edit/edit.js'
export { type EditImagesOptions, editImages, type ImageEdit } from './edit/edit-images.js'
export type { EditCost, EditPlan, EditStep, EditWrite } from './edit/edit-plan.js'
export {
  CorruptImageError,
  Qcow2Error,
  type Qcow2ErrorCode,
  ShortReadError,
  UnsupportedFeatureError,
} from './errors.js'
export { type Finding, findingToError } from './findings.js'
export {
  extensionMagic,
  extensionName,
  type HeaderExtension,
  parseExtensions,
  parseFeatureNames,
} from './format/extensions.js'
export { autoclear, compatible, type FeatureName, type FeatureType, incompatible } from './format/features.js'
export { parseHeader, type Qcow2Header } from './format/header.js'
export { checkHeader } from './format/header-check.js'
export { readSnapshots, type Snapshot } from './format/snapshots.js'
export { type ImageInspection, inspectImage } from './image/inspect.js'
export { openImage } from './image/open.js'
export type { EditJournal } from './journal/journal.js'
export { type HostOffset, hostOffset } from './offsets.js'
export type { FoundState } from './recover/found.js'
export {
  type RecoveredImage,
  type RecoverOptions,
  type Recovery,
  recoverImages,
} from './recover/recover.js'
export { blobStorage } from './storage/blob.js'
export { type OpenHttpOptions, openHttp } from './storage/http.js'
export { memoryStorage } from './storage/memory.js'
export { type MemoryWritableOptions, memoryWritable } from './storage/memory-writable.js'
export {
  checkRange,
  type ImageStorage,
  type ReadOptions,
  readBytes,
  type StoredRun,
} from './storage/storage.js'
export type { WritableStorage } from './storage/writable.js'
