import type { ImageStorage } from '../storage/storage.js'
import { type OpenFileOptions, openForReading } from './file-storage.js'
import { READER } from './lock-bytes.js'
import { lockImage } from './ofd-locks.js'

/**
 * Opens a regular file or a block device for reading, and holds it against writers until it is closed, as QEMU does
 * with an image that it reads, and against QEMU: what is read stays as it is. Other readers are let be.
 *
 * @throws {Qcow2Error} `image-missing`, `read-failed` as of `openFile`; `image-locked` while somebody writes to it, or
 * has it for himself; `lock-unavailable` where no lock can be taken
 */
export async function openHeldFile(path: string, options: OpenFileOptions = {}): Promise<ImageStorage> {
  return await openForReading(path, options, fd => lockImage(fd, path, 'required', READER))
}
