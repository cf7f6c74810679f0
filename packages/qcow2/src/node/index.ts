export { openFile } from './file-storage.js'
export { type ImageLocks, readLocks } from './locks.js'
export { fileOpener } from './opener.js'
