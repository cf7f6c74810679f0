export { type OpenFileOptions, openFile } from './file-storage.js'
export { type ImageLocks, readLocks } from './locks.js'
export { type FileOpenerOptions, fileOpener } from './opener.js'
