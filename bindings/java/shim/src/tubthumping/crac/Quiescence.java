package tubthumping.crac;

import java.lang.management.ManagementFactory;
import java.math.BigInteger;
import java.security.SecureRandom;
import java.util.List;
import java.util.Map;

/**
 * The JVM's own part in a checkpoint: made ready after the last before-hook, undone before the
 * first after-hook. Knowledge of the JDK's inside is one class each, called here in order.
 */
final class Quiescence {
    /** More than the compilations that a warm service has left take; less than a user minds. */
    private static final long COMPILERS_MS = 5_000;

    private Environment environment;
    private References references;
    private Heap heap;
    private SecureGenerators generators;
    private Seeders seeders;
    private Addresses addresses;
    private TimeZones timeZones;
    private Timers timers;
    private Uptime uptime;
    private FlightRecordings recordings;
    private ManagementAgent management;
    private Map<String, String> givenProperties = Map.of();
    private LeftOpen leftOpen;
    private List<String> allowedPaths = List.of();

    /**
     * Makes ready: loads what will be needed, then closes what is unreachable, then shrinks.
     *
     * @param policies what becomes of what is left open
     */
    void begin(ResourcePolicies policies, Failures failures) throws Exception {
        // Everything that loads classes or opens files comes first. In a copy the first use of a
        // class would cost time, and its garbage would be in the image.
        environment = new Environment();
        references = new References();
        heap = new Heap();
        generators = new SecureGenerators();
        seeders = new Seeders();
        addresses = new Addresses();
        timeZones = new TimeZones(ManagementFactory.getRuntimeMXBean().getInputArguments().toString());
        timers = new Timers();
        uptime = new Uptime();
        allowedPaths = ClassPath.allowedPaths();
        rehearse();
        stopRecordings();
        management = ManagementAgent.stop();
        references.drain();
        leftOpen = new LeftOpen(policies);
        leftOpen.apply(allowedPaths, failures);
        if (!failures.isEmpty()) {
            return;
        }
        // Before the heap: what they still compile is garbage afterwards.
        Agent.awaitCompilers(COMPILERS_MS);
        heap.shrink();
        // Last, since all of the above leaves free memory behind in the native heap.
        Agent.trimNativeHeap();
        // The very last, since nothing may draw numbers from here on; and a timer waits for nobody.
        timers.hold();
        generators.lock();
    }

    /** Runs the way back with nothing to do, so that its classes are loaded and linked. */
    private void rehearse() throws Exception {
        byte[] letter = new Strings().add("restored").add("").pack();
        environment.apply(Strings.unpackRaw(letter));
        // Reseeds the original as well, for which that must be as good a seed as a copy's.
        byte[] seed = new byte[32];
        new SecureRandom().nextBytes(seed);
        reseed(new BigInteger(1, seed).toString(16));
        timers.rehearse();
        new Management.RestoreTime(System.currentTimeMillis()).uptimeMillis();
    }

    List<String> allowedPaths() {
        return allowedPaths;
    }

    /** Descriptors that a rule leaves to the engine. */
    List<Integer> keptDescriptors() {
        return leftOpen.kept();
    }

    private void stopRecordings() throws Exception {
        Class<?> recorder = Internals.type("jdk.jfr.FlightRecorder");
        if (recorder != null && Internals.isInUse(recorder)) {
            recordings = new FlightRecordings();
            recordings.stop();
        }
    }

    private void reseed(String seed) throws Exception {
        FreshSeed fresh = new FreshSeed(seed);
        generators.reseed(fresh);
        seeders.reseed(fresh);
    }

    /** Undoes {@link #begin}, however far it came. */
    void end(Failures failures) {
        if (generators != null) {
            generators.unlock();
        }
        if (timers != null) {
            timers.release();
        }
        if (leftOpen != null) {
            leftOpen.reopen(failures);
        }
        if (heap != null) {
            heap.restore();
        }
        if (recordings != null) {
            attempt(failures, recordings::start);
        }
        if (management != null) {
            attempt(failures, () -> management.start(givenProperties));
        }
    }

    /** Adapts this copy to the place and time in which it gets up. Comes before {@link #end}. */
    void restored(Restored restored, Failures failures) {
        attempt(failures, timers::move);
        attempt(failures, () -> reseed(restored.seed()));
        Management.RestoreTime.last = new Management.RestoreTime(restored.unixMillis());
        attempt(failures, () -> uptime.restart(restored.unixMillis()));
        attempt(failures, addresses::forget);
        attempt(failures, () -> environment.apply(restored.variables()));
        attempt(failures, timeZones::follow);
        attempt(failures, () -> restored.input().apply());
        givenProperties = restored.input().properties();
        leftOpen.restored(failures);
    }

    /** The last of all, when the hooks have run: what is new listens on sockets of its own. */
    void startNewManagement(RestoreInput input, Failures failures) {
        boolean runs = management != null && management.isRemote();
        if (!runs && input.hasProperty("com.sun.management")) {
            attempt(failures, Quiescence::startManagementAgent);
        }
    }

    /** JVM(since 17): {@code jdk.internal.agent.Agent.startAgent}; same on 25. */
    private static void startManagementAgent() throws Exception {
        Class<?> agent = Internals.type("jdk.internal.agent.Agent");
        if (agent == null) {
            throw new IllegalStateException("this runtime has no module jdk.management.agent");
        }
        Internals.call(Internals.method(agent, "startAgent"), null);
    }

    private interface Step {
        void run() throws Exception;
    }

    private static void attempt(Failures failures, Step step) {
        try {
            step.run();
        } catch (Exception e) {
            failures.add(e);
        }
    }
}
