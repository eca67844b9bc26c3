package tubthumping.crac;

import java.lang.invoke.MethodHandle;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;

/**
 * The JDK's generators of secure random numbers. Two copies of one image would draw the same ones:
 * session ids, keys, nonces, {@code UUID.randomUUID()}.
 *
 * <p>In: each generator at the time when it is made and when it is seeded, and fresh bytes in a
 * copy. Out: generators that go ways of their own.
 *
 * <p>Invariant: from {@link #lock} on until {@link #unlock} no number is drawn, so that none is
 * drawn in a copy before the fresh bytes are in. A generator that was seeded before it had drawn
 * anything is the application's own affair and goes on where it stood. Others only ever gain
 * entropy: the fresh bytes are mixed in.
 *
 * <p>Not here: generators of other providers; {@code java.util.Random} (see {@link Seeders}).
 *
 * <p>JVM(since 17): {@code NativePRNG} with its two variants, {@code SHA1PRNG} ({@code
 * sun.security.provider.SecureRandom}) and {@code DRBG} ({@code AbstractDrbg}); same names on 25.
 */
final class SecureGenerators {
    private static final String PACKAGE = "sun.security.provider.";
    private static final String SHA1 = "SecureRandom";

    /** How often to begin anew because a generator came to life meanwhile. */
    private static final int ATTEMPTS = 10;

    /** Every generator of the two kinds of which there can be many; whether it is the application's. */
    private static final WeakIdentityMap<Object, Boolean> MADE = new WeakIdentityMap<>();

    private final Members members = Members.get();
    private final List<Object> nativeLocks = new ArrayList<>();
    private final List<Object> nativeGenerators = new ArrayList<>();
    private final Object seeder;
    private final Set<Object> locked = Collections.newSetFromMap(new IdentityHashMap<>());
    private final List<Object> order = new ArrayList<>();

    SecureGenerators() throws ReflectiveOperationException {
        // Made now if there are none: made later, between here and the image, they could draw.
        for (String variant : List.of("", "$Blocking", "$NonBlocking")) {
            Object generator = members.nativeInstance(variant);
            if (generator != null) {
                nativeGenerators.add(generator);
                // In this order the JDK takes them.
                nativeLocks.add(members.lockSetSeed.get(generator));
                nativeLocks.add(members.lockGetBytes.get(generator));
            }
        }
        seeder = members.seeder.get(null);
    }

    // Called from within the JDK, through Hooks.

    static void made(Object generator) {
        MADE.put(generator, false);
    }

    static void seeded(Object generator) {
        // Not by Members: the first generator is seeded while the application starts, and to open the JDK and make
        // handles of its methods would take that thread 10 to 20 ms, and 130 classes.
        boolean isSha1 = generator.getClass().getName().equals(PACKAGE + SHA1);
        if (!Boolean.TRUE.equals(MADE.get(generator)) && !Agent.hasState(generator, isSha1)) {
            MADE.put(generator, true);
        }
    }

    /**
     * Called before the first round of a late agent: finds generators made before it came. Nobody can tell
     * whether the application had seeded one, so that all of them are reseeded.
     */
    static void adopt() throws ReflectiveOperationException {
        Members members = Members.get();
        Object[] found = Agent.instances(new Class<?>[] {members.sha1, members.drbg});
        if (found == null) {
            throw new IllegalStateException("the heap cannot be searched for generators");
        }
        for (Object generator : found) {
            if (MADE.get(generator) == null) {
                MADE.put(generator, false);
            }
        }
    }

    // On the thread of the round.

    /** Waits until no number is being drawn, and lets none be drawn from then on. */
    void lock() throws ReflectiveOperationException {
        for (int attempt = 1; ; attempt++) {
            // First those that draw from the seeder, then the seeder: the JDK's own order.
            for (Object generator : MADE.keys()) {
                if (generator != seeder && members.mixers(nativeGenerators, generator) == null) {
                    lock(generator);
                }
            }
            lock(seeder);
            for (Object lock : nativeLocks) {
                lock(lock);
            }
            for (Object generator : nativeGenerators) {
                Object mixer = members.mixRandom.get(generator);
                if (mixer != null) {
                    lock(mixer);
                }
            }
            // From here on none comes to life. One that has, after the list was made, is not
            // waited for while all of this is held: its thread may wait for something of it.
            if (attempt == ATTEMPTS || !isAnyLeftOut()) {
                return;
            }
            unlock();
        }
    }

    private boolean isAnyLeftOut() throws ReflectiveOperationException {
        for (Object generator : MADE.keys()) {
            if (!locked.contains(generator) && members.isAlive(generator)) {
                return true;
            }
        }
        return false;
    }

    private void lock(Object object) {
        if (locked.add(object)) {
            order.add(object);
            Agent.lock(object);
        }
    }

    void unlock() {
        for (int i = order.size() - 1; i >= 0; i--) {
            Agent.unlock(order.get(i));
        }
        order.clear();
        locked.clear();
    }

    /** Mixes fresh bytes into every generator that is not the application's own affair. */
    void reseed(FreshSeed fresh) throws Exception {
        for (Object generator : nativeGenerators) {
            // Bytes read from the kernel in advance.
            members.buffered.setInt(generator, 0);
            Object mixer = members.mixRandom.get(generator);
            if (mixer != null) {
                members.setSeed(mixer, fresh);
            }
        }
        members.setSeed(seeder, fresh);
        for (Object generator : MADE.keys()) {
            boolean isApplications = Boolean.TRUE.equals(MADE.get(generator));
            boolean isDone =
                    generator == seeder || members.mixers(nativeGenerators, generator) != null;
            // One that has not drawn anything yet seeds itself.
            if (!isApplications && !isDone && members.isAlive(generator)) {
                members.setSeed(generator, fresh);
            }
        }
    }

    /** What of the JDK's classes is needed. */
    private static final class Members {
        private static Members instance;

        private final Class<?> sha1 = type(SHA1);
        private final Field sha1State = Internals.field(sha1, "state");
        private final MethodHandle sha1SetSeed = Internals.handle(sha1, "engineSetSeed", byte[].class);
        private final Class<?> drbg = type("AbstractDrbg");
        private final Field drbgInstantiated = Internals.field(drbg, "instantiated");
        private final MethodHandle drbgSetSeed = Internals.handle(drbg, "engineSetSeed", byte[].class);
        private final Field seeder = Internals.field(type("SecureRandom$SeederHolder"), "seeder");
        private final Class<?> io = type("NativePRNG$RandomIO");
        private final Field buffered = Internals.field(io, "buffered");
        private final Field mixRandom = Internals.field(io, "mixRandom");
        private final Field lockGetBytes = Internals.field(io, "LOCK_GET_BYTES");
        private final Field lockSetSeed = Internals.field(io, "LOCK_SET_SEED");

        private Members() throws ReflectiveOperationException {}

        static synchronized Members get() throws ReflectiveOperationException {
            if (instance == null) {
                instance = new Members();
            }
            return instance;
        }

        private static Class<?> type(String name) {
            return Internals.type(PACKAGE + name);
        }

        /** {@code null} on a system without the devices. */
        Object nativeInstance(String variant) throws ReflectiveOperationException {
            return Internals.field(type("NativePRNG" + variant), "INSTANCE").get(null);
        }

        /** Whether the generator has a state to draw from. */
        boolean isAlive(Object generator) throws ReflectiveOperationException {
            return sha1.isInstance(generator)
                    ? sha1State.get(generator) != null
                    : drbgInstantiated.getBoolean(generator);
        }

        /** The native generator that uses another one for mixing; {@code null} for none. */
        Object mixers(List<Object> natives, Object generator) throws ReflectiveOperationException {
            for (Object candidate : natives) {
                if (mixRandom.get(candidate) == generator) {
                    return candidate;
                }
            }
            return null;
        }

        void setSeed(Object generator, FreshSeed fresh) throws Exception {
            MethodHandle setSeed = sha1.isInstance(generator) ? sha1SetSeed : drbgSetSeed;
            Internals.call(setSeed, generator, fresh.bytes());
        }
    }
}
