import { dirname, isAbsolute, join } from 'node:path'
import type { ImageOpener } from '../chain/open-chain.js'
import { openFile } from './file-storage.js'

/**
 * Opens local regular files and block devices: the top as the caller names it, backing files as QEMU does,
 * relative to the folder of the image that names them.
 *
 * @param mapPath where an image is now, given the path by which the domain or an image knows it (default: there)
 */
export function fileOpener(mapPath: (path: string) => string = path => path): ImageOpener {
  return async (path, { from }) => {
    const namedAs = from === undefined || isAbsolute(path) ? path : join(dirname(from.namedAs), path)
    // A relative name means the folder where the image above really is; mapping its meaning gives the same place.
    const filename =
      from === undefined || isAbsolute(path) ? mapPath(path) : join(dirname(from.filename), path)
    return { storage: await openFile(filename), filename, namedAs }
  }
}
