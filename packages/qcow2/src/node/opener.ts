import { isAbsolute } from 'node:path'
import type { ImageOpener } from '../chain/open-chain.js'
import { type OpenFileOptions, openFile } from './file-storage.js'

export interface FileOpenerOptions extends OpenFileOptions {
  /** Where an image is now, given the path by which the domain or an image knows it. Default: there. */
  readonly mapPath?: (path: string) => string
}

/**
 * Opens local regular files and block devices: the top as the caller names it, backing files as QEMU does,
 * relative to the folder of the image that names them.
 */
export function fileOpener(options: FileOpenerOptions = {}): ImageOpener {
  const { mapPath = (path: string) => path } = options
  return async (path, { from }) => {
    const relative = from !== undefined && !isAbsolute(path)
    const namedAs = relative ? beside(from.namedAs, path) : path
    const mapped = mapPath(namedAs)
    // A relative name means the folder where the image above is now, unless a rule speaks of this very file.
    const filename = relative && mapped === namedAs ? beside(from.filename, path) : mapped
    return { storage: await openFile(filename, options), filename, namedAs }
  }
}

/**
 * A name relative to an image's folder, put together as QEMU does (path_combine): as text. Taking `..` out would
 * lead elsewhere behind a symbolic link, to a file that may have a bitmap of that name too.
 */
function beside(image: string, path: string): string {
  return image.slice(0, image.lastIndexOf('/') + 1) + path
}
