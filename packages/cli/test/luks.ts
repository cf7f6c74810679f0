import { derivingKeys, qemuImg } from '@tidemark/testkit'

/**
 * An encrypted image, made quickly.
 *
 * @param secret what QEMU's `secret` object takes: `data=…` or `file=…`
 * @param more settings beside the format, such as `hash-alg=sha512`
 */
export async function createLuks(
  file: string,
  size: string,
  secret: string,
  more: readonly string[] = [],
): Promise<void> {
  const luks = ['format=luks', 'key-secret=s', 'iter-time=10', ...more]
  const how = { objects: [`secret,id=s,${secret}`], options: luks.map(option => `encrypt.${option}`) }
  await derivingKeys(() => qemuImg.create(file, size, how))
}
