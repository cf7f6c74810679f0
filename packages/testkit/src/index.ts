export * from './bytes.js'
export * from './data-oracle.js'
export { type DirtyMaps, type Example, makeWebshop, type Verdicts } from './example-webshop.js'
export { type BackupOutcome, backupXml, type Verdict } from './libvirt-backup.js'
export { labUser } from './libvirt-home.js'
export * from './libvirt-lab.js'
export type { LabDisk, LabDomain, SeenDisk } from './libvirt-xml.js'
export * from './live-chains.js'
export * from './nbd.js'
export { ownClusters } from './own-clusters.js'
export * from './peers.js'
export * from './qcow2-builder.js'
export { extensionMagic, qemuFeatureNames } from './qcow2-header.js'
export type { BitmapLayout, Qcow2Layout } from './qcow2-layout.js'
export * from './qcow2-spec.js'
export type { CreateOptions, MapExtent, QemuImgCheck, QemuImgInfo, QemuImgQcow2Info } from './qemu-img.js'
export * as qemuImg from './qemu-img.js'
export * from './qemu-io.js'
export * from './qemu-keys.js'
export * from './random.js'
export {
  coverageOf,
  type DataAxis,
  type DataFeatures,
  dataAxes,
} from './random-data-coverage.js'
export {
  type DataLayer,
  type DataSnapshot,
  makeRandomDataImage,
  openArgsOf,
  type RandomDataImage,
} from './random-data-image.js'
export * from './random-image.js'
export * from './run.js'
export * from './storage-daemon.js'
export * from './strace.js'
export * from './tmp.js'
