export { nodeCodecs } from './codecs.js'
export { type OpenFileOptions, openFile } from './file-storage.js'
export { type ImageLocks, type LockTable, readLocks, readLockTable } from './locks.js'
export { type FileOpenerOptions, fileOpener } from './opener.js'
