package tubthumping.crac;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.SplittableRandom;

/**
 * Bytes without end from the 32 that each copy is given: SHA-256 over a digest of these and a counter;
 * and numbers from a generator whose seed is some of these bytes.
 *
 * <p>A digest takes a copy's interpreter a tenth of a millisecond for each 64 bytes, before anything can
 * be answered: what is digested for each generator fits into one such block.
 *
 * <p>Invariant: no two calls return the same, in one copy or in two.
 */
final class FreshSeed {
    private final MessageDigest sha256;
    private final byte[] key;
    private final SplittableRandom numbers;
    private long counter;

    /**
     * For one copy.
     *
     * @param seed as the engine has written it
     */
    FreshSeed(String seed) throws NoSuchAlgorithmException {
        sha256 = MessageDigest.getInstance("SHA-256");
        key = sha256.digest(seed.getBytes(StandardCharsets.UTF_8));
        // There is one for each thread, and a copy's digests are not compiled code. Whoever knows
        // the seed of one ordinary generator knows what it will draw, and may know of others.
        byte[] bytes = bytes();
        numbers = new SplittableRandom(ByteBuffer.wrap(bytes).getLong());
        Arrays.fill(bytes, (byte) 0);
    }

    /** As many as there are in the seed: no generator could gain by more. */
    byte[] bytes() {
        sha256.update(key);
        sha256.update(ByteBuffer.allocate(Long.BYTES).putLong(0, counter));
        counter++;
        return sha256.digest();
    }

    /** For a generator that is not meant to keep a secret. */
    long number() {
        return numbers.nextLong();
    }
}
