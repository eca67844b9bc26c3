package tubthumping.crac;

/**
 * The native half, {@code libtub_java_agent.so}. The JVM finds these in the agent's library.
 *
 * <p>Byte arrays are lists of {@link Strings}.
 */
final class Agent {
    private Agent() {}

    /**
     * Waits for the engine's word on a round that is prepared: on the control socket at first, on
     * the mailbox once the engine has committed. One of
     *
     * <ul>
     *   <li>{@code resumed}, image, generation
     *   <li>{@code restored}, instance, generation, seed, time, number of arguments, argument…,
     *       variable…; the native environment has the variables already
     *   <li>{@code failed}, message, and for each object kind, descriptor, detail
     * </ul>
     */
    static native byte[] awaitVerdict();

    /**
     * Starts {@code tub checkpoint} for this process, as no child of it. {@code started}, process
     * id, path of its messages; or {@code failed}, message; or {@code unconfigured}.
     */
    static native byte[] startEngine();

    /**
     * Collects garbage, whatever options say about {@code System.gc()}, and gives the free memory of
     * the heap back to the kernel; {@code false} where it does not know how this collector's looks.
     */
    static native boolean collect(byte[] collector);

    /** Gives free memory of the native heap back to the kernel. */
    static native void trimNativeHeap();

    /** Waits until the JIT compilers have nothing to do; {@code false} where that took too long. */
    static native boolean awaitCompilers(long limitMs);

    /** Living objects of these classes and their subclasses; {@code null} if the JVM fails. */
    static native Object[] instances(Class<?>[] types);

    /**
     * Whether a generator of the JDK's has a state to draw from; {@code true} where that cannot be told.
     *
     * @param isSha1 whether it is one of SHA1PRNG, else one of DRBG
     */
    static native boolean hasState(Object generator, boolean isSha1);

    /** What is open, eleven strings for each descriptor: see {@link OpenDescriptor}. */
    static native byte[] openDescriptors();

    /** Closes a descriptor that no object of Java's stands for. */
    static native void close(int number);

    /**
     * Takes a file out of the way of the engine, its number stays taken: {@code parked}, flags,
     * offset; or {@code failed}, message.
     */
    static native byte[] park(int number);

    /** Opens a file at its number again: nothing, or what went wrong. */
    static native byte[] reopen(int number, byte[] path, int flags, long offset);

    /** Enters the monitor of an object, as {@code synchronized} does, but without an end. */
    static native boolean lock(Object object);

    /** Leaves the monitor of an object. */
    static native boolean unlock(Object object);

    /** Opens a package of {@code module}, also to reflection, to {@code reader}. */
    static native boolean openPackage(Module module, byte[] name, Module reader);
}
