package tubthumping.crac;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;

/**
 * Bytes without end from the 32 that each copy is given: SHA-256 over these and a counter.
 *
 * <p>Invariant: no two calls return the same bytes, in one copy or in two.
 */
final class FreshSeed {
    /** Enough for any generator of the JDK. */
    private static final int BYTES = 64;

    private final MessageDigest sha256;
    private final byte[] seed;
    private long counter;

    /**
     * For one copy.
     *
     * @param seed as the engine has written it
     */
    FreshSeed(String seed) throws NoSuchAlgorithmException {
        sha256 = MessageDigest.getInstance("SHA-256");
        this.seed = seed.getBytes(StandardCharsets.UTF_8);
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

    long number() {
        byte[] bytes = bytes();
        long number = ByteBuffer.wrap(bytes).getLong();
        Arrays.fill(bytes, (byte) 0);
        return number;
    }
}
