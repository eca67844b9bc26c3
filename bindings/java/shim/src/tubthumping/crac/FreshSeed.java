package tubthumping.crac;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.SplittableRandom;

/**
 * Bytes without end from the 32 that each copy is given: SHA-256 over these and a counter; and numbers
 * from a generator whose seed is some of these bytes.
 *
 * <p>Invariant: no two calls return the same, in one copy or in two.
 */
final class FreshSeed {
    /** Enough for any generator of the JDK. */
    private static final int BYTES = 64;

    private final MessageDigest sha256;
    private final byte[] seed;
    private final SplittableRandom numbers;
    private long counter;

    /**
     * For one copy.
     *
     * @param seed as the engine has written it
     */
    FreshSeed(String seed) throws NoSuchAlgorithmException {
        sha256 = MessageDigest.getInstance("SHA-256");
        this.seed = seed.getBytes(StandardCharsets.UTF_8);
        // There is one for each thread, and a copy's digests are not compiled code. Whoever knows
        // the seed of one ordinary generator knows what it will draw, and may know of others.
        byte[] bytes = bytes();
        numbers = new SplittableRandom(ByteBuffer.wrap(bytes).getLong());
        Arrays.fill(bytes, (byte) 0);
    }

    byte[] bytes() {
        byte[] bytes = new byte[BYTES];
        for (int at = 0; at < BYTES; at += sha256.getDigestLength()) {
            sha256.update(seed);
            sha256.update(ByteBuffer.allocate(Long.BYTES).putLong(0, counter));
            counter++;
            byte[] block = sha256.digest();
            System.arraycopy(block, 0, bytes, at, Math.min(block.length, BYTES - at));
        }
        return bytes;
    }

    /** For a generator that is not meant to keep a secret. */
    long number() {
        return numbers.nextLong();
    }
}
