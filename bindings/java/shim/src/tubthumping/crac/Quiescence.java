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
    private ProcessHandles processes;
    private Uptime uptime;
    private FlightRecordings recordings;
    private ManagementAgent management;
    /** What a copy does, in this order. Made before the image, since to link each takes a while. */
    private List<Adaptation> adaptations = List.of();
    private Map<String, String> givenProperties = Map.of();
    private LeftOpen leftOpen;
    private List<String> allowedPaths = List.of();
    private Map<String, String> metrics = Map.of();

    /**
     * Makes ready: loads what will be needed, then closes what is unreachable, then shrinks.
     *
     * @param policies what becomes of what is left open
     * @param resources how many there are
     */
    void begin(ResourcePolicies policies, int resources, Failures failures) throws Exception {
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
        processes = new ProcessHandles();
        uptime = new Uptime();
        adaptations =
                List.of(
                        restored -> timers.move(),
                        restored -> reseed(restored.seed()),
                        restored -> uptime.restart(restored.unixMillis()),
                        restored -> processes.follow(),
                        restored -> addresses.forget(),
                        restored -> environment.apply(restored.variables()),
                        restored -> timeZones.follow(),
                        restored -> restored.input().apply());
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
        metrics = Metrics.read(resources);
        heap.shrink();
        // Last, since all of the above leaves free memory behind in the native heap.
        Agent.trimNativeHeap();
        // The very last, since nothing may draw numbers from here on; and a timer waits for nobody.
        timers.hold();
        generators.lock();
    }

    /**
     * Goes the way back with nothing to do, so that its classes are loaded and linked, and no reflection
     * is used for the first time: together that takes a copy longer than all that is to be done.
     */
    private void rehearse() throws Exception {
        // Reseeds the original as well, for which that must be as good a seed as a copy's.
        byte[] random = new byte[32];
        new SecureRandom().nextBytes(random);
        String seed = new BigInteger(1, random).toString(16);
        Strings verdict = new Strings().add("restored").add("").add(0).add(seed).add(0);
        // No words, and a variable that is none.
        verdict.add(0).add("");
        Restored restored = Restored.of(Strings.unpackRaw(verdict.pack()));
        timers.rehearse();
        reseed(restored.seed());
        new Management.RestoreTime(System.currentTimeMillis()).uptimeMillis();
        uptime.rehearse();
        processes.follow();
        addresses.rehearse();
        environment.rehearse();
        environment.apply(restored.variables());
        timeZones.follow();
        restored.input().apply();
        startNewManagement(restored.input(), new Failures());
    }

    List<String> allowedPaths() {
        return allowedPaths;
    }

    /** What is stored with the image, by name. */
    Map<String, String> metrics() {
        return metrics;
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
        if (recordings != null) {
            recordings.start(failures);
        }
        if (management != null) {
            attempt(failures, () -> management.start(givenProperties));
        }
    }

    /** Adapts this copy to the place and time in which it gets up. Comes before {@link #end}. */
    void restored(Restored restored, Failures failures) {
        Management.RestoreTime.last = new Management.RestoreTime(restored.unixMillis());
        for (Adaptation adaptation : adaptations) {
            try {
                adaptation.to(restored);
            } catch (Exception e) {
                failures.add(e);
            }
        }
        if (recordings != null) {
            recordings.restored();
        }
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

    /** As late, since a flight recorder takes its time to start. */
    void startNewRecordings(RestoreInput input, Failures failures) {
        for (String options : input.recordings()) {
            attempt(failures, () -> RequestedRecording.start(options));
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

    private interface Adaptation {
        void to(Restored restored) throws Exception;
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
